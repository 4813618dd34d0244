//! SQL Server Reporting Services reports as a source.
