//! Which columns there are, of which types.
//!
//! Of a table the catalog tells. A view's columns in the catalog may be older than the tables beneath it, and a query has none: of these a
//! temporary table is made that has their columns and no rows, and the server describes that one. So nothing is needed beyond SELECT INTO,
//! which every server that speaks TDS takes.

use tiberius::{FixedLenType, MetaDataColumn, TypeInfo, VarLenType};
use towpath_core::{Error, ErrorKind, Result};

use super::select::{DROP_SHAPE, SHAPE, Selected, Selection, derived, make_shape};
use crate::{
    catalog::{Table, TableName},
    client::Session,
    config::SourceOptions,
    error::During as _,
    types::SqlType,
};

/// Looks at what the options ask for.
pub(crate) async fn look(session: &mut Session, options: &SourceOptions) -> Result<Selection> {
    let place = options.table.as_ref().map_or("query".to_owned(), |table| format!("table {table}"));
    selection(session, options).await.map_err(|error| error.at(place))
}

async fn selection(session: &mut Session, options: &SourceOptions) -> Result<Selection> {
    match (&options.table, &options.query) {
        (Some(table), _) => {
            let name = TableName::parse(table)?;
            match Table::read(session, &name).await? {
                Some(table) if table.is_table() && !table.columns.is_empty() => of_table(table),
                // A view, a synonym, or nothing: then the server says so.
                other => match described(session, &name.to_string()).await {
                    Ok(columns) => Selection::new(name.to_string(), columns, None),
                    Err(error) if other.is_none() && !error.can_retry() && error.kind() != ErrorKind::NotFound => {
                        Err(Error::not_found("there is no such table or view, or none that the login may see")
                            .because(error)
                            .hint("check the name and its schema; `towpath discover` lists what there is"))
                    }
                    Err(error) => Err(error),
                },
            }
        }
        (None, query) => {
            let from = derived(query.as_deref().unwrap_or_default());
            let columns = described(session, &from).await.map_err(|error| match error.kind() {
                ErrorKind::Config if error.what_to_do().is_none() => error.hint(RULES),
                _ => error,
            })?;
            Selection::new(from, columns, None)
        }
    }
}

/// What a query of the user's must be.
const RULES: &str = "write one SELECT whose columns all have names, without ORDER BY and without WITH: it is read as SELECT … FROM (query) AS q";

fn of_table(table: Table) -> Result<Selection> {
    let key = table.uniques.iter().find(|unique| unique.primary);
    let key = key.and_then(|key| if let [column] = key.columns.as_slice() { Some(column.clone()) } else { None });
    let columns = table.columns.into_iter().map(|column| Selected { name: column.name, of: column.of });
    Selection::new(table.name.to_string(), columns.collect(), key)
}

/// The columns of anything that can stand behind FROM.
async fn described(session: &mut Session, from: &str) -> Result<Vec<Selected>> {
    let what = "describe the columns";
    session.batch(what, &make_shape(from)).await?;
    let columns = session.driver().column_metadata(SHAPE, &["*"]).await.during(what)?;
    session.calm();
    session.batch(what, DROP_SHAPE).await?;
    columns.iter().map(|column| Ok(Selected { name: column.col_name().to_owned(), of: of_wire(column)? })).collect()
}

/// MS-TDS 2.2.5.4: types as they are on the wire. Lengths are in bytes, 0xFFFF for max.
fn of_wire(column: &MetaDataColumn<'_>) -> Result<SqlType> {
    let of = type_of(column.base().ty());
    let of = of.ok_or_else(|| Error::unsupported(format!("column {}: its type is not known", column.col_name())))?;
    // A rowversion is eight bytes that nobody may write.
    Ok(if of == SqlType::Binary(8) && !column.base().is_updateable() { SqlType::RowVersion } else { of })
}

fn type_of(info: &TypeInfo) -> Option<SqlType> {
    use SqlType as T;
    Some(match info {
        TypeInfo::FixedLen(of) => match of {
            FixedLenType::Null => return None,
            FixedLenType::Bit => T::Bit,
            FixedLenType::Int1 => T::TinyInt,
            FixedLenType::Int2 => T::SmallInt,
            FixedLenType::Int4 => T::Int,
            FixedLenType::Int8 => T::BigInt,
            FixedLenType::Float4 => T::Real,
            FixedLenType::Float8 => T::Float,
            FixedLenType::Money => T::Money,
            FixedLenType::Money4 => T::SmallMoney,
            FixedLenType::Datetime => T::DateTime,
            FixedLenType::Datetime4 => T::SmallDateTime,
        },
        TypeInfo::VarLenSized(of) => {
            let length = of.len();
            let bytes = u16::try_from(length).ok().filter(|length| *length != u16::MAX);
            let units = bytes.map(|bytes| bytes / 2);
            let digits = u8::try_from(length).unwrap_or(7);
            match (of.r#type(), length) {
                (VarLenType::Intn, 1) => T::TinyInt,
                (VarLenType::Intn, 2) => T::SmallInt,
                (VarLenType::Intn, 4) => T::Int,
                (VarLenType::Intn, _) => T::BigInt,
                (VarLenType::Bitn, _) => T::Bit,
                (VarLenType::Floatn, 4) => T::Real,
                (VarLenType::Floatn, _) => T::Float,
                (VarLenType::Money, 4) => T::SmallMoney,
                (VarLenType::Money, _) => T::Money,
                (VarLenType::Datetimen, 4) => T::SmallDateTime,
                (VarLenType::Datetimen, _) => T::DateTime,
                (VarLenType::Daten, _) => T::Date,
                (VarLenType::Timen, _) => T::Time(digits),
                (VarLenType::Datetime2, _) => T::DateTime2(digits),
                (VarLenType::DatetimeOffsetn, _) => T::DateTimeOffset(digits),
                (VarLenType::Guid, _) => T::UniqueIdentifier,
                (VarLenType::BigVarBin, _) => T::VarBinary(bytes),
                (VarLenType::BigBinary, _) => T::Binary(bytes.unwrap_or(8000)),
                (VarLenType::BigVarChar, _) => T::VarChar(bytes),
                (VarLenType::BigChar, _) => T::Char(bytes.unwrap_or(8000)),
                (VarLenType::NVarchar, _) => T::NVarChar(units),
                (VarLenType::NChar, _) => T::NChar(units.unwrap_or(4000)),
                (VarLenType::Text, _) => T::Text,
                (VarLenType::NText, _) => T::NText,
                (VarLenType::Image, _) => T::Image,
                (VarLenType::Xml, _) => T::Xml,
                (VarLenType::SSVariant, _) => T::Variant,
                (VarLenType::Udt, _) => T::Other("udt".to_owned()),
                (VarLenType::Decimaln | VarLenType::Numericn, _) => return None,
            }
        }
        TypeInfo::VarLenSizedPrecision { precision, scale, .. } => T::Decimal(*precision, *scale),
        TypeInfo::Xml { .. } => T::Xml,
        TypeInfo::Udt(of) => T::Other(of.type_name.clone()),
    })
}

#[cfg(test)]
mod tests {
    use tiberius::VarLenContext;

    use super::*;

    #[test]
    fn types_on_the_wire_have_their_names() {
        let sized = |of, length| TypeInfo::VarLenSized(VarLenContext::new(of, length, None));
        for (info, expect) in [
            (TypeInfo::FixedLen(FixedLenType::Int4), "int"),
            (TypeInfo::FixedLen(FixedLenType::Money4), "smallmoney"),
            (sized(VarLenType::Intn, 1), "tinyint"),
            (sized(VarLenType::Intn, 8), "bigint"),
            (sized(VarLenType::Floatn, 4), "real"),
            (sized(VarLenType::Money, 8), "money"),
            (sized(VarLenType::Datetimen, 4), "smalldatetime"),
            (sized(VarLenType::Datetimen, 8), "datetime"),
            (sized(VarLenType::Timen, 3), "time(3)"),
            (sized(VarLenType::Datetime2, 7), "datetime2(7)"),
            (sized(VarLenType::DatetimeOffsetn, 0), "datetimeoffset(0)"),
            (sized(VarLenType::NVarchar, 8000), "nvarchar(4000)"),
            (sized(VarLenType::NVarchar, 0xFFFF), "nvarchar(max)"),
            (sized(VarLenType::BigVarChar, 8000), "varchar(8000)"),
            (sized(VarLenType::BigVarBin, 0xFFFF), "varbinary(max)"),
            (sized(VarLenType::BigBinary, 16), "binary(16)"),
            (
                TypeInfo::VarLenSizedPrecision { ty: VarLenType::Numericn, size: 17, precision: 38, scale: 10 },
                "decimal(38, 10)",
            ),
            (TypeInfo::Xml { schema: None, size: 0 }, "xml"),
        ] {
            assert_eq!(type_of(&info).unwrap().to_string(), expect, "{info:?}");
        }
    }
}
