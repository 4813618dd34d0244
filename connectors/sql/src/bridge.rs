//! Between Towpath's Arrow and DataFusion's, which lags a version behind: the same memory under the other library's types.
//!
//! Nothing is copied: a buffer of one becomes the owner of a buffer of the other. What comes over is checked as data from anywhere
//! would be (offsets, UTF-8), so that nothing unsafe is needed.

use std::sync::Arc;

use arrow_array::RecordBatch as Ours;
use arrow_schema as ours;
use datafusion::arrow::{array::RecordBatch as Theirs, datatypes as theirs};
use towpath_core::{Error, Result};

/// A buffer of either library, as an owner of bytes.
struct Owner<B>(B);

/// One direction: the types of both libraries have the same names.
macro_rules! direction {
    ($module:ident, $from_schema:path, $from_data:path, $from_buffer:path, $to_schema:path, $to_data:path, $to_buffer:path, $to_nulls:path, $to_bits:path) => {
        mod $module {
            use super::{Error, Owner, Result};
            use $from_buffer as FromBuffer;
            use $from_data as FromData;
            use $from_schema as from;
            use $to_bits as Bits;
            use $to_buffer as ToBuffer;
            use $to_data as ToData;
            use $to_nulls as Nulls;
            use $to_schema as to;

            impl AsRef<[u8]> for Owner<FromBuffer> {
                fn as_ref(&self) -> &[u8] {
                    self.0.as_slice()
                }
            }

            fn buffer(buffer: &FromBuffer) -> ToBuffer {
                ToBuffer::from(bytes::Bytes::from_owner(Owner(buffer.clone())))
            }

            pub(super) fn array(data: &FromData, kind: to::DataType) -> Result<ToData> {
                let broken = |error| Error::data("a column is not what its type says").because(error);
                let children = data.child_data().iter().zip(children(&kind)).map(|(child, kind)| array(child, kind));
                let nulls = data
                    .nulls()
                    .map(|nulls| Nulls::new(Bits::new(buffer(nulls.inner().inner()), nulls.offset(), nulls.len())));
                ToData::builder(kind.clone())
                    .len(data.len())
                    .offset(data.offset())
                    .buffers(data.buffers().iter().map(buffer).collect())
                    .nulls(nulls)
                    .child_data(children.collect::<Result<_>>()?)
                    .align_buffers(true)
                    .build()
                    .map_err(|error| broken(error))
            }

            fn children(kind: &to::DataType) -> Vec<to::DataType> {
                match kind {
                    to::DataType::List(item)
                    | to::DataType::LargeList(item)
                    | to::DataType::FixedSizeList(item, _)
                    | to::DataType::Map(item, _) => vec![item.data_type().clone()],
                    to::DataType::Struct(fields) => fields.iter().map(|field| field.data_type().clone()).collect(),
                    _ => vec![],
                }
            }

            // Without the metadata, which says nothing to a query.
            pub(super) fn field(field: &from::Field) -> Option<to::Field> {
                let kind = kind(field.data_type())?;
                Some(to::Field::new(field.name(), kind, field.is_nullable()))
            }

            fn unit(unit: &from::TimeUnit) -> to::TimeUnit {
                match unit {
                    from::TimeUnit::Second => to::TimeUnit::Second,
                    from::TimeUnit::Millisecond => to::TimeUnit::Millisecond,
                    from::TimeUnit::Microsecond => to::TimeUnit::Microsecond,
                    from::TimeUnit::Nanosecond => to::TimeUnit::Nanosecond,
                }
            }

            /// `None`: a type that does not go over.
            pub(super) fn kind(kind_: &from::DataType) -> Option<to::DataType> {
                Some(match kind_ {
                    from::DataType::Null => to::DataType::Null,
                    from::DataType::Boolean => to::DataType::Boolean,
                    from::DataType::Int8 => to::DataType::Int8,
                    from::DataType::Int16 => to::DataType::Int16,
                    from::DataType::Int32 => to::DataType::Int32,
                    from::DataType::Int64 => to::DataType::Int64,
                    from::DataType::UInt8 => to::DataType::UInt8,
                    from::DataType::UInt16 => to::DataType::UInt16,
                    from::DataType::UInt32 => to::DataType::UInt32,
                    from::DataType::UInt64 => to::DataType::UInt64,
                    from::DataType::Float16 => to::DataType::Float16,
                    from::DataType::Float32 => to::DataType::Float32,
                    from::DataType::Float64 => to::DataType::Float64,
                    from::DataType::Timestamp(of, zone) => to::DataType::Timestamp(unit(of), zone.clone()),
                    from::DataType::Date32 => to::DataType::Date32,
                    from::DataType::Date64 => to::DataType::Date64,
                    from::DataType::Time32(of) => to::DataType::Time32(unit(of)),
                    from::DataType::Time64(of) => to::DataType::Time64(unit(of)),
                    from::DataType::Duration(of) => to::DataType::Duration(unit(of)),
                    from::DataType::Interval(of) => to::DataType::Interval(match of {
                        from::IntervalUnit::YearMonth => to::IntervalUnit::YearMonth,
                        from::IntervalUnit::DayTime => to::IntervalUnit::DayTime,
                        from::IntervalUnit::MonthDayNano => to::IntervalUnit::MonthDayNano,
                    }),
                    from::DataType::Binary => to::DataType::Binary,
                    from::DataType::FixedSizeBinary(width) => to::DataType::FixedSizeBinary(*width),
                    from::DataType::LargeBinary => to::DataType::LargeBinary,
                    from::DataType::BinaryView => to::DataType::BinaryView,
                    from::DataType::Utf8 => to::DataType::Utf8,
                    from::DataType::LargeUtf8 => to::DataType::LargeUtf8,
                    from::DataType::Utf8View => to::DataType::Utf8View,
                    from::DataType::List(item) => to::DataType::List(field(item)?.into()),
                    from::DataType::LargeList(item) => to::DataType::LargeList(field(item)?.into()),
                    from::DataType::FixedSizeList(item, width) => {
                        to::DataType::FixedSizeList(field(item)?.into(), *width)
                    }
                    from::DataType::Struct(fields) => {
                        to::DataType::Struct(fields.iter().map(|of| field(of)).collect::<Option<Vec<_>>>()?.into())
                    }
                    from::DataType::Map(item, sorted) => to::DataType::Map(field(item)?.into(), *sorted),
                    from::DataType::Decimal32(digits, scale) => to::DataType::Decimal32(*digits, *scale),
                    from::DataType::Decimal64(digits, scale) => to::DataType::Decimal64(*digits, *scale),
                    from::DataType::Decimal128(digits, scale) => to::DataType::Decimal128(*digits, *scale),
                    from::DataType::Decimal256(digits, scale) => to::DataType::Decimal256(*digits, *scale),
                    _ => return None,
                })
            }
        }
    };
}

direction!(
    inward,
    arrow_schema,
    arrow_data::ArrayData,
    arrow_buffer::Buffer,
    datafusion::arrow::datatypes,
    datafusion::arrow::array::ArrayData,
    datafusion::arrow::buffer::Buffer,
    datafusion::arrow::buffer::NullBuffer,
    datafusion::arrow::buffer::BooleanBuffer
);
direction!(
    outward,
    datafusion::arrow::datatypes,
    datafusion::arrow::array::ArrayData,
    datafusion::arrow::buffer::Buffer,
    arrow_schema,
    arrow_data::ArrayData,
    arrow_buffer::Buffer,
    arrow_buffer::NullBuffer,
    arrow_buffer::BooleanBuffer
);

/// An input's schema, as DataFusion has it. Every column may be NULL: what a source promises is not relied on.
///
/// # Errors
/// Config: a type that a query cannot read, or two columns of one name.
pub(crate) fn schema_in(schema: &ours::Schema) -> Result<theirs::SchemaRef> {
    let mut names = std::collections::HashSet::new();
    let fields = schema.fields().iter().map(|field| {
        if !names.insert(field.name()) {
            let error = Error::config(format!("there are several columns '{}'", field.name()));
            return Err(error.hint("let the source give each column a name of its own"));
        }
        let there = inward::field(field).map(|field| field.with_nullable(true));
        there.ok_or_else(|| {
            let error = Error::config(format!("column '{}': a query cannot read {}", field.name(), field.data_type()));
            error.hint("cast it, or leave it out, before it comes here")
        })
    });
    Ok(Arc::new(theirs::Schema::new(fields.collect::<Result<Vec<_>>>()?)))
}

/// The columns of a batch that are asked for, as DataFusion has them.
pub(crate) fn batch_in(rows: &Ours, columns: &[usize], schema: &theirs::SchemaRef) -> Result<Theirs> {
    let arrays = columns.iter().zip(schema.fields()).map(|(&at, field)| {
        let column = rows.columns().get(at).ok_or_else(|| Error::internal("a batch has lost a column"))?;
        let data = inward::array(&column.to_data(), field.data_type().clone());
        data.map(datafusion::arrow::array::make_array).map_err(|error| error.at(format!("column {}", field.name())))
    });
    let options = datafusion::arrow::array::RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
    Theirs::try_new_with_options(Arc::clone(schema), arrays.collect::<Result<_>>()?, &options)
        .map_err(|error| Error::internal("rows do not fit their schema").because(error))
}

/// The result's schema, as Towpath has it: views become plain text and bytes, which every sink takes.
///
/// # Errors
/// Config: two columns of one name, or a type that Towpath does not carry.
pub(crate) fn schema_out(schema: &theirs::Schema) -> Result<ours::SchemaRef> {
    let mut names = std::collections::HashSet::new();
    let fields = schema.fields().iter().map(|field| {
        if !names.insert(field.name()) {
            let error = Error::config(format!("query: the result has several columns '{}'", field.name()));
            return Err(error.hint("name each column, as in `orders.id as order_id`"));
        }
        let plain = theirs::Field::new(field.name(), plain(field.data_type()), true);
        outward::field(&plain).ok_or_else(|| {
            let error =
                Error::config(format!("query: the result's column '{}' is {}", field.name(), field.data_type()));
            error.hint("cast it: `cast(… as varchar)`")
        })
    });
    Ok(Arc::new(ours::Schema::new(fields.collect::<Result<Vec<_>>>()?)))
}

/// What a column of the result is made before it goes out.
fn plain(kind: &theirs::DataType) -> theirs::DataType {
    match kind {
        theirs::DataType::Utf8View => theirs::DataType::Utf8,
        theirs::DataType::BinaryView => theirs::DataType::Binary,
        theirs::DataType::Dictionary(_, value) => plain(value),
        other => other.clone(),
    }
}

/// Rows of the result.
pub(crate) fn batch_out(rows: &Theirs, schema: &ours::SchemaRef) -> Result<Ours> {
    let arrays = rows.columns().iter().zip(schema.fields()).map(|(column, field)| {
        let wanted = plain(column.data_type());
        let column = if wanted == *column.data_type() {
            Arc::clone(column)
        } else {
            datafusion::arrow::compute::cast(column, &wanted)
                .map_err(|error| Error::internal("cannot make a view plain").because(error))?
        };
        let data = outward::array(&column.to_data(), field.data_type().clone());
        data.map(arrow_array::make_array).map_err(|error| error.at(format!("column {}", field.name())))
    });
    let options = arrow_array::RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
    Ours::try_new_with_options(Arc::clone(schema), arrays.collect::<Result<_>>()?, &options)
        .map_err(|error| Error::internal("the result does not fit its schema").because(error))
}
