//! One HTTP client for all connectors: authentication, timeouts, limits, streaming.
