//! What goes wrong, and at which request.

use std::time::Duration;

/// What kind of request a fault waits for. Each kind is counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum On {
    /// A connection, before anything is read from it.
    Connection,
    /// A `Type 1` message.
    Challenge,
    /// A `Type 3` message. The fault strikes when the proof has been looked at, so it counts towards a lockout.
    Proof,
    /// A report asked for by URL access, signed in.
    Render,
    /// `GetItemParameters`, signed in.
    Parameters,
    /// `ListChildren`, signed in.
    List,
}

/// What happens. Several at once add up, as far as they can: slow, and then cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The connection is closed without an answer.
    Close,
    /// The answer comes whole, and the connection is closed behind it without a word. At [`On::Challenge`]: between the messages.
    CloseAfter,
    /// The same, announced by `Connection: close`.
    CloseAnnounced,
    /// The answer begins after so long.
    FirstByte(Duration),
    /// So many bytes a second. Of a rendering's body only.
    Rate(u64),
    /// The connection breaks behind so many bytes of the body, as they are on the wire. Of a rendering only.
    CutAfter(u64),
    /// Nothing comes any more behind so many bytes, and the connection stays. Of a rendering only.
    StallAfter(u64),
    /// The body ends cleanly behind so many bytes before its encoding: a server that hides an error. What is compressed
    /// lacks its end. Of a rendering only, and not with a Content-Length.
    EndAfter(u64),
    /// An answer of this status with a page that is not the report server's, as from a proxy.
    Status(u16),
    /// The same with `Retry-After` in seconds.
    RetryAfter(u16, u64),
    /// An error of the report server: its code and text, with the status that the server uses for it.
    Rs(&'static str, &'static str),
    /// A page with status 200 and no error code: a sign-in form or a maintenance page.
    Html,
}

/// Faults to come, by the calls they wait for.
pub type Faults = crate::faults::Faults<On, Fault>;

#[cfg(test)]
mod tests {
    use std::ops::Bound;

    use super::*;

    #[test]
    fn a_fault_strikes_at_its_numbers_and_no_other() {
        let check = |which: (Bound<u64>, Bound<u64>), expect: &[u64]| {
            let faults = Faults::default();
            faults.add(On::Render, which, Fault::Close);
            let struck: Vec<u64> = (0..5)
                .filter(|_| {
                    assert!(faults.due(|on| *on == On::List).is_empty(), "another kind does not count");
                    !faults.due(|on| *on == On::Render).is_empty()
                })
                .collect();
            assert_eq!(struck, expect);
        };
        check((Bound::Included(1), Bound::Excluded(3)), &[1, 2]);
        check((Bound::Included(0), Bound::Included(0)), &[0]);
        check((Bound::Excluded(2), Bound::Unbounded), &[3, 4]);
        check((Bound::Unbounded, Bound::Unbounded), &[0, 1, 2, 3, 4]);
    }
}
