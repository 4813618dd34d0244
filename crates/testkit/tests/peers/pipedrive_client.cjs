// What the vendor's own client library makes of the simulator: node pipedrive_client.cjs URL TOKEN. A line for each step.
const fs = require("node:fs");
const path = require("node:path");
const { v1, v2 } = require("pipedrive");

// The keys of a model that was generated from the vendor's specification.
const models = path.join(path.dirname(require.resolve("pipedrive/v2")), "models");
const keys = (...names) =>
  names.flatMap((name) => [...fs.readFileSync(path.join(models, `${name}.d.ts`), "utf8").matchAll(/^ {4}'(\w+)'\??:/gm)].map((found) => found[1]));
// What an answer lacks of its model, and what it has beyond.
const compare = (what, answer, ...names) => {
  const [given, known] = [Object.keys(answer), keys(...names)];
  const lacks = known.filter((key) => !given.includes(key));
  const beyond = given.filter((key) => !known.includes(key));
  tell("model", what, known.length, "keys, lacks", lacks, "beyond", beyond);
};

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

// The keys of a request's model that the server does not know: null is wrong for some, but none may be unknown.
const accept = async (what, target, method, ...names) => {
  const unknown = [];
  for (const key of keys(...names)) {
    const body = JSON.stringify({ [key]: null });
    const headers = { "x-api-token": token, "content-type": "application/json" };
    let answer;
    while ((answer = await fetch(`${url}/api/v2/${target}`, { method, headers, body })).status === 429) {
      await new Promise((done) => setTimeout(done, 500));
    }
    if ((await answer.text()).includes("Unrecognized key")) unknown.push(key);
  }
  tell("request", what, keys(...names).length, "keys, not known:", unknown);
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

  compare("deal", won.data, "deal");
  compare("person", renamed.data, "person");
  compare("organization", organization.data, "organization-item");
  compare("activity", activity.data, "activity-item");
  compare("product", product.data, "base-product-all-of", "base-product-all-of1", "get-deals-products-response-data-inner-all-of2", "prices-array");
  compare("pipeline", pipelines.data[0], "get-pipelines-response-all-of-data-inner");
  compare("stage", stages.data[0], "stage-item");
  const included = await new v2.DealFieldsApi(two).getDealFields({ include_fields: "ui_visibility,important_fields,required_fields" });
  compare("field", included.data[0], "get-deal-fields200-response-data-inner");
  const hit = (await deals.searchDeals({ term: "Order" })).data.items[0];
  compare("hit", hit, "get-deal-search-response-all-of-data-items-inner");
  compare("found deal", hit.item, "get-deal-search-response-all-of-data-items-inner-item");
  compare("found person", (await persons.searchPersons({ term: "C3" })).data.items[0].item, "get-person-search-response-all-of-data-items-inner-item");

  await accept("add deal", "deals", "POST", "add-deal-request");
  await accept("update deal", "deals/1", "PATCH", "update-deal-request");
  await accept("add person", "persons", "POST", "add-person-request");
  await accept("update person", "persons/1", "PATCH", "update-person-request");
  await accept("add organization", "organizations", "POST", "add-organization-request");
  await accept("update organization", "organizations/1", "PATCH", "update-organization-request");
  await accept("add activity", "activities", "POST", "add-activity-request");
  await accept("add product", "products", "POST", "add-product-request-all-of", "base-product-all-of1", "product-request");
  await accept("add pipeline", "pipelines", "POST", "add-pipeline-request");
  await accept("add stage", "stages", "POST", "add-stage-request");
  await accept("update stage", "stages/1", "PATCH", "update-stage-request");

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
