//! The one list of connectors in the standard binary. Cargo drops crates that nobody names; a test asserts that this list, the
//! folders under `connectors/` and what has registered itself are the same.

use towpath_connector_csv as _;
use towpath_connector_mssql as _;
use towpath_connector_sqlite as _;
use towpath_connector_ssrs as _;
