//! Simulators of foreign systems and the conformance suite every connector passes.
//!
//! [`memory`] is the contract's reference implementation: a source and a sink whose world outside can be told to fail.
//! [`report_server`] is a report server behind NTLM, [`sql_server`] a SQL Server over SQLite, [`pipedrive`] an account of that CRM.
//! [`faults`] strike at the nth call of either. [`conformance`] is the suite.

pub mod conformance;
pub mod faults;
pub mod memory;
pub mod pipedrive;
pub mod report_server;
pub mod rows;
pub mod sample;
pub mod sql_server;
