//! What an account offers: its kinds of records, and their fields with keys, types and options.

use std::fmt::Write as _;

use serde_json::json;
use towpath_core::{Result, source::Discovery};

use crate::{client::Crm, columns, entity::Entity, fields::Definition};

/// So many options of a field are shown.
const OPTIONS: usize = 8;

/// Lists the fields of one kind of records, or the custom ones of all.
///
/// # Errors
/// Of the calls.
pub async fn discover(crm: &Crm, entity: Option<Entity>) -> Result<Discovery> {
    let (mut text, mut items) = (String::new(), vec![]);
    let entities = entity.map_or(Entity::ALL.to_vec(), |entity| vec![entity]);
    for kind in entities {
        let definitions = crm.definitions(kind).await?;
        let columns = columns::of_entity(kind, &definitions);
        let shown: Vec<&Definition> =
            definitions.iter().filter(|definition| definition.is_custom_field || entity.is_some()).collect();
        let customs = definitions.iter().filter(|definition| definition.is_custom_field).count();
        let _ = writeln!(text, "{kind}: {} columns, {customs} custom fields", columns.len());
        let width = shown.iter().map(|one| one.field_name.chars().count()).max().unwrap_or_default();
        for one in shown {
            let pad = width - one.field_name.chars().count();
            let _ = write!(text, "  {}{} {:<12} {}", one.field_name, " ".repeat(pad), one.field_type, one.field_code);
            let labels: Vec<_> = one.options.iter().flatten().filter_map(|choice| choice.label.as_deref()).collect();
            if !labels.is_empty() {
                let more = if labels.len() > OPTIONS { ", …" } else { "" };
                let _ = write!(text, "  {}{more}", labels[..labels.len().min(OPTIONS)].join(", "));
            }
            text.push('\n');
        }
        if entity.is_some() {
            let _ = writeln!(text, "\ncolumns of a source with `entity: {kind}`:");
            for column in &columns {
                let _ = writeln!(text, "  {}", column.name);
            }
        }
        items.push(json!({
            "entity": kind.path(),
            "columns": columns.iter().map(|column| &column.name).collect::<Vec<_>>(),
            "fields": definitions
                .iter()
                .map(|one| {
                    json!({
                        "name": one.field_name,
                        "key": one.field_code,
                        "type": one.field_type,
                        "custom": one.is_custom_field,
                        "options": one.options.iter().flatten().map(|choice| &choice.label).collect::<Vec<_>>(),
                    })
                })
                .collect::<Vec<_>>(),
        }));
    }
    Ok(Discovery { text, items: items.into() })
}
