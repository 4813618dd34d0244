//! The one list of connectors in the standard binary.
