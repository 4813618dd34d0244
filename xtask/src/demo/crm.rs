//! `config/pipelines/csv_to_pipedrive.yaml` as it stands there: three files on a server keep a simulated CRM equal. A plan with its price, a run, changes
//! in the files, a plan, a run, and one that finds nothing to do.

use std::fs;

use super::{Stage, put};
use crate::{
    Fallible, cmd,
    shop::{self, Log, Shop},
};

const SHOP: Shop = Shop { customers: 80, orders: 220 };

pub(super) fn run() -> Fallible {
    let mut stage = Stage::set_up_to_join("towpath-demo-crm")?;
    let files = stage.folder.join("files");
    fs::create_dir_all(&files).map_err(|error| format!("{}: {error}", files.display()))?;
    SHOP.write(&files)?;
    // A row that cannot be: nobody is C999.
    append(&files.join("orders.csv"), "O999,C999,2026-02-01\n")?;
    let server = shop::serve(&files)?;
    let (_crm, crm) = stage.simulate(&["pipedrive", "--plan", "ultimate", "--api-token", "secret"])?;
    let file = cmd::root().join("config/pipelines/csv_to_pipedrive.yaml");
    let file = file.to_str().ok_or("the path of this folder is not UTF-8")?;
    println!(
        "The pipeline is {file}. What is the company's comes from the environment:\n\n  \
         CRM_FILES={server}      customers.csv, orders.csv and payments.csv: {customers} customers, {orders} orders\n  \
         PIPEDRIVE_URL={crm}     simulated: no persons, no deals; 120 calls in 2 s, 210,000 tokens a day\n  \
         PIPEDRIVE_API_TOKEN=secret\n  PIPEDRIVE_PLAN=ultimate\n",
        customers = SHOP.customers,
        orders = SHOP.orders + 1
    );
    for (name, value) in [
        ("CRM_FILES", server),
        ("PIPEDRIVE_URL", crm.clone()),
        ("PIPEDRIVE_API_TOKEN", "secret".to_owned()),
        ("PIPEDRIVE_PLAN", "ultimate".to_owned()),
    ] {
        stage.variables.push((name, value));
    }

    println!("What would be made, and what it costs. Nothing is sent yet.\n");
    stage.towpath(&["plan", file, "--diff"])?;
    calls(&crm, "That asked for")?;
    stage.towpath(&["run", file])?;
    calls(&crm, "That took")?;
    println!("One order is of a customer whom no file has. It waits, with the reason, and the others went on:\n");
    stage.towpath(&["dlq", "show", file])?;

    println!(
        "A day later a customer has a new address, an order has been paid for once more, and somebody new has ordered something.\n"
    );
    change(&files.join("customers.csv"), "C7,Customer 7,\n", "C7,Customer 7,seven@example.com\n")?;
    append(&files.join("customers.csv"), "C81,Ada Lovelace,ada@example.com\n")?;
    append(&files.join("orders.csv"), "O221,C81,2026-02-01\n")?;
    append(&files.join("payments.csv"), "441,O3,0.30,EUR\n442,O221,99.90,EUR\n443,O221,0.10,EUR\n")?;
    stage.towpath(&["plan", file, "--diff", "--out", "plan.json"])?;
    println!("Somebody has looked at it. Now exactly that, or nothing:\n");
    shop::forget(&crm)?;
    stage.towpath(&["run", file, "--plan", "plan.json"])?;
    calls(&crm, "That took")?;
    println!("Once more: no file has changed, so the CRM is not asked anything.\n");
    stage.towpath(&["run", file])?;
    calls(&crm, "That took")?;

    put(&stage.folder.join("look.yaml"), LOOK)?;
    stage.towpath(&["preview", "look.yaml", "deals", "-n", "5"])?;
    println!(
        "To try next:\n\n  \
         cargo xtask simulate pipedrive --port 8090 --plan ultimate    an account that stays\n  \
         towpath serve {file}\n                                                                each night, with your own account in the variables\n  \
         towpath connectors pipedrive                                  every option\n\n\
         docs/pipedrive.md goes through it with an account of yours.\n\
         towpath is {towpath}",
        towpath = stage.programs.towpath.display()
    );
    Ok(())
}

/// Says what the simulator counted, and has it count anew.
fn calls(crm: &str, what: &str) -> Fallible {
    let log = Log::of(crm)?;
    let [all, writes, tokens, refused] = ["calls", "writes", "tokens", "statuses/429"].map(|path| log.number(path));
    println!(
        "{what} {all} calls of the CRM, {writes} of them changed something, {tokens} tokens; {refused} were turned away.\n"
    );
    shop::forget(crm)
}

fn append(path: &std::path::Path, lines: &str) -> Fallible {
    let text = fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    put(path, &(text + lines))
}

fn change(path: &std::path::Path, from: &str, to: &str) -> Fallible {
    let text = fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    put(path, &text.replace(from, to))
}

const LOOK: &str = r#"version: 1
name: look
sources:
  deals:
    type: pipedrive
    url: "${PIPEDRIVE_URL}"
    api_token: "${PIPEDRIVE_API_TOKEN}"
    entity: deals
    fields: [OrderID, title, value, currency, Order date, person_id]
sinks:
  file: { type: csv, inputs: [deals], path: look.csv }
"#;
