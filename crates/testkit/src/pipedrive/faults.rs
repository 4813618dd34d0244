//! What goes wrong, and at which call.

use std::{fmt, sync::Arc, time::Duration};

use super::Account;

/// Which calls a fault waits for. Those that fit are counted from 0.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct On {
    methods: Vec<String>,
    path: Option<String>,
    query: Option<String>,
    body: Option<String>,
}

impl On {
    /// Every call.
    pub fn any() -> Self {
        Self::default()
    }
    /// Those of a method and a path, without the host: `On::route("PATCH", "/api/v2/deals/*")`; a star is one segment.
    pub fn route(method: &str, path: &str) -> Self {
        Self { methods: vec![method.to_owned()], path: Some(path.to_owned()), ..Self::default() }
    }
    /// POST, PUT, PATCH and DELETE, of anything but tokens.
    pub fn writes() -> Self {
        Self { methods: ["POST", "PUT", "PATCH", "DELETE"].map(str::to_owned).to_vec(), ..Self::default() }
    }
    /// Only those whose query, as it came, holds this.
    #[must_use]
    pub fn query(mut self, part: &str) -> Self {
        self.query = Some(part.to_owned());
        self
    }
    /// Only those whose body, as it came, holds this.
    #[must_use]
    pub fn body(mut self, part: &str) -> Self {
        self.body = Some(part.to_owned());
        self
    }

    pub(super) fn fits(&self, method: &str, path: &str, query: &str, body: &str) -> bool {
        let of_path = self.path.as_deref().is_none_or(|wanted| {
            wanted.split('/').count() == path.split('/').count()
                && wanted.split('/').zip(path.split('/')).all(|(wanted, given)| wanted == "*" || wanted == given)
        });
        let of_method = self.methods.is_empty() || self.methods.iter().any(|wanted| wanted == method);
        let token = path.starts_with("/oauth") && self.path.is_none();
        of_path
            && of_method
            && !token
            && self.query.as_deref().is_none_or(|part| query.contains(part))
            && self.body.as_deref().is_none_or(|part| body.contains(part))
    }
}

/// What somebody else does to the account meanwhile.
#[derive(Clone)]
pub struct Meanwhile(Arc<dyn Fn(&Account) + Send + Sync>);

impl fmt::Debug for Meanwhile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Meanwhile(…)")
    }
}

/// What happens. Several at once add up, as far as they can: slow, and then cut.
#[derive(Clone, Debug)]
pub enum Fault {
    /// The connection is closed without an answer, and nothing was done.
    CutBefore,
    /// The call is executed and paid for, and the connection is closed without an answer.
    CutAfter,
    /// The call is executed, and the connection breaks behind so many bytes of the answer's body.
    CutBody(usize),
    /// Nothing is done and nothing ever comes; the connection stays.
    StallBefore,
    /// The call is executed, nothing ever comes, the connection stays.
    StallAfter,
    /// The call is executed, and answered, after so long; executed even if the client has gone.
    Slow(Duration),
    /// Nothing is done; an answer of this status, with the vendor's `ERR_UNKNOWN` (of 429: the burst's body).
    Status(u16),
    /// The same, with `Retry-After` in seconds.
    RetryAfter(u16, u64),
    /// The call is executed, the answer is of this status: a gateway that lost patience.
    StatusAfter(u16),
    /// Nothing is done; 403 with a page, as from a firewall.
    Html403,
    /// The call is executed; its answer is a page with status 200: a maintenance notice.
    Html200,
    /// Nothing is done; the day's tokens are said to be gone.
    Daily429,
    /// Somebody else does this just before the call is executed: see [`Fault::meanwhile`].
    Before(Meanwhile),
    /// The same just after it was executed: between two pages.
    After(Meanwhile),
}

impl Fault {
    /// Somebody else does this just before the call is executed.
    pub fn meanwhile(work: impl Fn(&Account) + Send + Sync + 'static) -> Self {
        Self::Before(Meanwhile(Arc::new(work)))
    }
    /// Somebody else does this once the call is executed: a record inserted or deleted between two pages.
    pub fn afterwards(work: impl Fn(&Account) + Send + Sync + 'static) -> Self {
        Self::After(Meanwhile(Arc::new(work)))
    }
}

impl Meanwhile {
    pub(super) fn happen(&self, account: &Account) {
        (self.0)(account);
    }
}

/// Faults to come, by the calls they wait for.
pub type Faults = crate::faults::Faults<On, Fault>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_strikes_at_the_calls_that_fit_and_no_other() {
        let check = |on: On, expect: &[usize]| {
            let faults = Faults::default();
            faults.add(on.clone(), 1..3, Fault::CutBefore);
            let calls = [
                ("GET", "/api/v2/deals", "limit=500", ""),
                ("POST", "/api/v2/deals", "", "{\"title\":\"a\"}"),
                ("PATCH", "/api/v2/deals/7", "", "{\"title\":\"b\"}"),
                ("PATCH", "/api/v2/deals/8", "", "{\"title\":\"c\"}"),
                ("POST", "/oauth/token", "", "grant_type=refresh_token"),
                ("PATCH", "/api/v2/deals/9", "", "{\"title\":\"d\"}"),
            ];
            let struck = calls
                .iter()
                .enumerate()
                .filter(|(_, call)| !faults.due(|on| on.fits(call.0, call.1, call.2, call.3)).is_empty());
            assert_eq!(struck.map(|(number, _)| number).collect::<Vec<_>>(), expect, "{on:?}");
        };
        check(On::any(), &[1, 2]);
        check(On::writes(), &[2, 3]);
        check(On::route("PATCH", "/api/v2/deals/*"), &[3, 5]);
        check(On::route("PATCH", "/api/v2/deals"), &[]);
        check(On::any().body("title"), &[2, 3]);
        check(On::any().query("limit"), &[]);
    }
}
