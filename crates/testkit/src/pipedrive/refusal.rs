//! What the vendor says when it says no.

use serde_json::{Value, json};

const INFO: &str = "Please check developers.pipedrive.com";

/// An answer that is not a success.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Refusal {
    pub status: u16,
    pub body: Value,
}

impl Refusal {
    /// A request that is not as the specification has it; `at` names the parameter, such as `custom_fields.<key>`. The code is the
    /// vendor's; the words, and the details beside them, are not published.
    pub fn schema(at: &str, why: &str) -> Self {
        let body = json!({
            "success": false,
            "error": format!("Validation failed: {at}: {why}"),
            "code": "ERR_SCHEMA_VALIDATION_FAILED",
            "details": [{ "path": at, "field_code": at.strip_prefix("custom_fields."), "message": why }],
        });
        Self { status: 400, body }
    }
    /// A request in the right form that cannot be done: a link to what does not exist, an unknown option.
    pub fn bad(why: &str) -> Self {
        Self { status: 400, body: json!({ "success": false, "error": why, "error_info": INFO, "data": null }) }
    }
    pub fn unauthorized() -> Self {
        Self::coded(401, "unauthorized access")
    }
    pub fn closed() -> Self {
        Self::coded(402, "company account is not open (possible reason: trial expired, payment details not entered)")
    }
    pub fn forbidden(why: &str) -> Self {
        Self::coded(403, why)
    }
    /// A limit of the plan: of open deals, or of custom fields.
    pub fn capped(why: &str, code: &str) -> Self {
        let body = json!({
            "success": false, "error": why, "error_info": INFO, "data": null, "additional_data": null, "code": code,
        });
        Self { status: 403, body }
    }
    pub fn not_found(what: &str) -> Self {
        let body = json!({
            "success": false, "error": format!("{what} not found"), "error_info": INFO, "data": null,
            "additional_data": null, "code": "ERR_NOT_FOUND",
        });
        Self { status: 404, body }
    }
    pub fn no_route() -> Self {
        Self::coded(404, "Unknown method .")
    }
    pub fn not_allowed() -> Self {
        Self::coded(405, "Method not allowed")
    }
    pub fn gone(what: &str) -> Self {
        Self::coded(410, what)
    }
    fn coded(status: u16, error: &str) -> Self {
        let body = json!({ "success": false, "error": error, "errorCode": status, "error_info": INFO });
        Self { status, body }
    }
    pub fn is(status: u16, error: &str) -> Self {
        Self::coded(status, error)
    }
}
