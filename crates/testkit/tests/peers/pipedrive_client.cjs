// What the vendor's own client library makes of the simulator: node pipedrive_client.cjs URL TOKEN. A line for each step.
const { v1, v2 } = require("pipedrive");

const [url, token] = process.argv.slice(2);
const two = new v2.Configuration({ apiKey: token, basePath: `${url}/api/v2` });
const one = new v1.Configuration({ apiKey: token, basePath: `${url}/v1` });

const tell = (...words) => console.log(words.map((word) => (typeof word === "string" ? word : JSON.stringify(word))).join(" "));

// The library rejects with the body of the answer.
const refused = async (what, work) => {
  try {
    await work;
    tell(what, "was not refused");
  } catch (error) {
    tell(what, error.code ?? error.errorCode ?? "no code", error.error ?? String(error));
  }
};

async function main() {
  const persons = new v2.PersonsApi(two);
  const deals = new v2.DealsApi(two);

  const field = await new v2.PersonFieldsApi(two).addPersonField({
    AddPersonFieldRequest: { field_name: "CustomerID", field_type: "varchar" },
  });
  const key = field.data.field_code;
  tell("field", field.data.field_name, field.data.field_type, key.length);
  const dealField = await new v2.DealFieldsApi(two).addDealField({
    AddDealFieldRequest: { field_name: "Colour", field_type: "enum", options: [{ label: "red" }, { label: "blue" }] },
  });
  const colour = dealField.data.field_code;
  const blue = dealField.data.options.find((option) => option.label === "blue").id;
  const fields = await new v2.PersonFieldsApi(two).getPersonFields({ limit: 500 });
  tell("fields", fields.data.filter((each) => each.is_custom_field).map((each) => each.field_name), fields.additional_data);
  const old = await new v1.DealFieldsApi(one).getDealFields();
  tell("v1 fields", old.data.filter((each) => each.edit_flag).map((each) => [each.name, each.field_type, each.options.length]));

  for (let n = 1; n <= 5; n++) {
    await persons.addPerson({
      AddPersonRequest: {
        name: `Person ${n}`,
        emails: [{ value: `p${n}@example.com`, primary: true, label: "work" }],
        custom_fields: { [key]: `C${n}` },
      },
    });
  }
  const pages = [];
  let cursor;
  do {
    const page = await persons.getPersons({ limit: 2, cursor, custom_fields: key });
    pages.push(page.data.map((person) => person.custom_fields[key]));
    cursor = page.additional_data.next_cursor;
  } while (cursor);
  tell("pages", pages);

  const deal = await deals.addDeal({
    AddDealRequest: { title: "Order 1", value: 12.5, currency: "USD", person_id: 1, custom_fields: { [colour]: blue } },
  });
  tell("deal", deal.data.title, deal.data.value, deal.data.currency, deal.data.person_id, deal.data.status, deal.data.custom_fields[colour] === blue);
  const won = await deals.updateDeal({ id: deal.data.id, UpdateDealRequest: { status: "won", value: 13 } });
  tell("won", won.data.status, won.data.value, won.data.won_time === won.data.close_time);
  tell("get", (await deals.getDeal({ id: 1, include_fields: "files_count" })).data.files_count);
  tell("won deals", (await deals.getDeals({ status: "won" })).data.length, (await deals.getArchivedDeals()).data.length);
  const renamed = await persons.updatePerson({ id: 1, UpdatePersonRequest: { name: " Ada Lovelace " } });
  tell("renamed", renamed.data.name, renamed.data.first_name, renamed.data.last_name, renamed.data.emails[0].value);
  tell("deleted", (await persons.deletePerson({ id: 2 })).data, (await persons.getPersons({})).data.length);
  const organization = await new v2.OrganizationsApi(two).addOrganization({ AddOrganizationRequest: { name: "O" } });
  tell("organization", organization.data.name, (await new v2.OrganizationsApi(two).getOrganizations({})).data.length);
  const pipelines = await new v2.PipelinesApi(two).getPipelines({});
  const stages = await new v2.StagesApi(two).getStages({ pipeline_id: pipelines.data[0].id });
  tell("stages", pipelines.data.length, stages.data.map((stage) => stage.order_nr));
  tell("search", (await persons.searchPersons({ term: "C3", exact_match: true })).data.items.map((each) => each.item.name));
  tell("item search", (await new v2.ItemSearchApi(two).searchItem({ term: "Order" })).data.items.map((each) => each.item.type));
  const activity = await new v2.ActivitiesApi(two).addActivity({ AddActivityRequest: { subject: "Call", deal_id: 1 } });
  tell("activity", activity.data.subject, activity.data.deal_id);
  const product = await new v2.ProductsApi(two).addProduct({ AddProductRequest: { name: "Lock" } });
  tell("product", product.data.name);
  const users = await new v1.UsersApi(one).getUsers();
  tell("users", users.data.map((user) => user.name), (await new v1.UsersApi(one).getCurrentUser()).data.is_you);
  const note = await new v1.NotesApi(one).addNote({ AddNoteRequest: { content: "hello", deal_id: 1 } });
  tell("note", note.data.content, note.data.deal_id);
  tell("currencies", (await new v1.CurrenciesApi(one).getCurrencies({ term: "" })).data.length > 5);

  await refused("missing", persons.getPerson({ id: 99 }));
  await refused("invalid", deals.addDeal({ AddDealRequest: { title: "x", value: "12" } }));
  await refused("wrong token", new v2.PersonsApi(new v2.Configuration({ apiKey: "wrong", basePath: `${url}/api/v2` })).getPersons({}));
  const many = await Promise.allSettled(Array.from({ length: 200 }, () => persons.getPerson({ id: 1 })));
  const late = many.find((each) => each.status === "rejected");
  tell("burst", late.reason.errorCode, late.reason.error);

  const app = new v2.OAuth2Configuration({ clientId: "towpath-app", clientSecret: "towpath-secret", redirectUri: "https://localhost", host: url });
  await app.authorize("towpath-code");
  const byApp = new v2.PersonsApi(new v2.Configuration({ accessToken: app.getAccessToken, basePath: app.basePath }));
  tell("oauth", (await byApp.getPerson({ id: 1 })).data.name);
  await app.tokenRefresh();
  tell("refreshed", (await byApp.getPerson({ id: 1 })).data.name);
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
