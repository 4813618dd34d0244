//! The leave to send a credential, and what is said about it afterwards.

use std::time::Duration;

use http::{StatusCode, response::Parts};
use tokio::sync::oneshot;
use towpath_core::{Context, Error, Result, Retry, Secret, context::Admission};

use crate::pooled::Failed;

/// How long an answer is waited for that nobody wants any more, for what it says about a credential.
const MOMENT: Duration = Duration::from_secs(2);

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

    /// Whether nothing is known of the credential yet.
    pub fn unproven(&self) -> bool {
        self.admission.as_ref().is_some_and(|admission| admission.unproven())
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

/// Waits for the head of an answer to an unproven credential. If the call is given up meanwhile (this is dropped), the answer is waited for
/// a [`MOMENT`] longer all the same: without it the credential would be in doubt, and the next run held up.
///
/// For requests that only read: one that writes must not go on when it was given up.
pub(crate) async fn watched<T: Send + 'static>(
    exchange: impl Future<Output = Result<(Parts, T), Failed>> + Send + 'static,
    leave: Leave,
    denied: bool,
) -> (Result<(Parts, T), Failed>, Leave) {
    let (mut answer, wanted) = oneshot::channel();
    tokio::spawn(async move {
        let mut exchange = std::pin::pin!(exchange);
        let given_up = async {
            answer.closed().await;
            tokio::time::sleep(MOMENT).await;
        };
        let outcome = tokio::select! {
            biased;
            outcome = &mut exchange => outcome,
            // The leave is dropped: nobody knows.
            () = given_up => return,
        };
        if let Err((outcome, leave)) = answer.send((outcome, leave)) {
            let verdict = match &outcome {
                Ok((head, _)) => unread(head.status, denied),
                Err(Failed { unsent: true, .. }) => Verdict::Unsent,
                Err(_) => Verdict::Unknown,
            };
            leave.settle(verdict);
        }
    });
    match wanted.await {
        Ok(seen) => seen,
        Err(_) => (Err(Error::internal("a request was lost").into()), Leave { admission: None, out: true }),
    }
}

/// What a status says whose answer nobody reads.
fn unread(status: StatusCode, denied: bool) -> Verdict {
    match status {
        // Only its text says whether it is the credential.
        StatusCode::UNAUTHORIZED if denied => Verdict::Unknown,
        StatusCode::UNAUTHORIZED => Verdict::Refused,
        status if status.is_redirection() || status == StatusCode::FORBIDDEN => Verdict::Proven,
        status => verdict(status),
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
