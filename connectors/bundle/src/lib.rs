//! The one list of connectors in the standard binary. Cargo drops crates that nobody names; a test asserts that this list, the
//! folders under `connectors/` and what has registered itself are the same.
//!
//! `sql` is a feature, because it is as large as everything else together.

use towpath_connector_csv as _;
use towpath_connector_mssql as _;
use towpath_connector_pipedrive as _;
#[cfg(feature = "sql")]
use towpath_connector_sql as _;
use towpath_connector_sqlite as _;
use towpath_connector_ssrs as _;
