//! The leave to send a credential, and what is said about it afterwards.

use http::StatusCode;
use towpath_core::{Context, Error, Result, Retry, Secret, context::Admission};

/// The leave to send a credential once. Dropped before [`goes_out`](Leave::goes_out), the credential counts as not sent; dropped
/// after it without a verdict, its outcome is unknown.
pub(crate) struct Leave {
    admission: Option<Box<dyn Admission>>,
    out: bool,
}

/// What an answer says about the credential that went out for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Proven,
    Refused,
    /// Not sent, or sent and not looked at.
    Unsent,
    Unknown,
}

impl Leave {
    /// Asks what is remembered of the credential; waits while another process tries it.
    ///
    /// # Errors
    /// Auth, if it was refused before or the outcome of a try is unknown. Unavailable in a plan whose credential is a variable that
    /// is not set: a run would not begin at all, a plan must not put the variable's name on the wire as a password.
    pub async fn ask(ctx: &Context, server: &str, account: &str, secret: &Secret) -> Result<Self> {
        if ctx.planning() && secret.expose().contains("${") {
            return Err(Error::unavailable("the credential is a variable that is not set, so the server is not asked")
                .retry(Retry::Never));
        }
        Ok(Self { admission: Some(ctx.credentials().admit(server, account, secret).await?), out: false })
    }

    /// From here on the credential may be on the wire.
    pub fn goes_out(&mut self) {
        self.out = true;
    }

    pub fn settle(mut self, verdict: Verdict) {
        let Some(admission) = self.admission.take() else { return };
        match verdict {
            Verdict::Proven => admission.proven(),
            Verdict::Refused => admission.refused(),
            Verdict::Unsent => admission.unsent(),
            Verdict::Unknown => drop(admission),
        }
    }
}

impl Drop for Leave {
    fn drop(&mut self) {
        if let Some(admission) = self.admission.take()
            && !self.out
        {
            admission.unsent();
        }
    }
}

/// Says it where a credential went out at all.
pub(crate) fn settle(leave: Option<Leave>, verdict: Verdict) {
    if let Some(leave) = leave {
        leave.settle(verdict);
    }
}

/// What a status other than 2xx, 3xx, 401 and 403 says.
pub(crate) fn verdict(status: StatusCode) -> Verdict {
    match status.as_u16() {
        // Turned away at the door, before anybody looked.
        407 | 408 | 429 | 503 => Verdict::Unsent,
        // A gateway passed it on and lost the answer.
        502 | 504 => Verdict::Unknown,
        _ => Verdict::Proven,
    }
}
