//! Who may come in: accounts, lockout, and the state of a sign-in on one connection.

use std::{
    collections::{HashMap, hash_map::RandomState},
    hash::BuildHasher,
    sync::{Mutex, PoisonError},
};

use base64::{Engine, prelude::BASE64_STANDARD};

use super::{
    ntlm::{self, Authenticate, FileTime, Refused},
    spnego::{self, Token},
};

/// A way to sign in that the server offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// `WWW-Authenticate: NTLM`.
    Ntlm,
    /// `WWW-Authenticate: Negotiate`; takes NTLM in it, as it is or wrapped in SPNEGO.
    Negotiate,
}

impl Scheme {
    /// As it stands in the header.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ntlm => "NTLM",
            Self::Negotiate => "Negotiate",
        }
    }
}

/// Somebody who may come in.
#[derive(Clone, Debug)]
pub struct Account {
    /// Empty: any domain will do.
    pub domain: String,
    /// The account's name; upper or lower case is all the same.
    pub user: String,
    /// Its password.
    pub password: String,
}

/// Accounts and how many wrong passwords each has seen; shared by all connections.
#[derive(Debug)]
pub(super) struct Gate {
    /// Empty: everybody is let in without a word.
    pub schemes: Vec<Scheme>,
    pub accounts: Vec<Account>,
    pub lockout_after: Option<u32>,
    /// The hash that a channel must be bound to, where there is TLS.
    pub bindings: Option<[u8; 16]>,
    pub bindings_required: bool,
    pub wrong: Mutex<HashMap<String, u32>>,
}

/// How far the sign-in of one connection is.
#[derive(Debug, Default)]
pub(super) enum State {
    #[default]
    Fresh,
    Challenged {
        negotiate: Vec<u8>,
        challenge: [u8; 8],
        message: Vec<u8>,
    },
    In(String),
}

/// What becomes of a request.
#[derive(Debug)]
pub(super) enum Step {
    /// Let in; `token` goes back in `WWW-Authenticate` where the scheme has a last word.
    Pass { user: String, token: Option<String> },
    /// Signed in with nothing: told what is offered.
    Offer,
    /// A `Type 1` came, this goes back.
    Challenge(String),
    /// A `Type 3` came for this account and is not taken.
    Refused(String, Refused),
}

/// What the `Authorization` header held, for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// No header.
    Nothing,
    /// The opening message.
    Type1,
    /// The proof.
    Type3,
    /// Something else.
    Other,
}

impl Gate {
    /// Whether an account is locked.
    pub fn is_locked(&self, user: &str) -> bool {
        let wrong = self.wrong.lock().unwrap_or_else(PoisonError::into_inner);
        let count = wrong.get(&user.to_uppercase()).copied().unwrap_or(0);
        self.lockout_after.is_some_and(|limit| count >= limit)
    }
    /// Forgets its wrong passwords.
    pub fn unlock(&self, user: &str) {
        self.wrong.lock().unwrap_or_else(PoisonError::into_inner).remove(&user.to_uppercase());
    }

    /// Takes one request of a connection.
    pub fn step(&self, state: &mut State, header: Option<&str>) -> (Sent, Step) {
        if self.schemes.is_empty() {
            return (Sent::Nothing, Step::Pass { user: "anonymous".to_owned(), token: None });
        }
        let Some(header) = header else {
            let step = match state {
                State::In(user) => Step::Pass { user: user.clone(), token: None },
                _ => Step::Offer,
            };
            return (Sent::Nothing, step);
        };
        let Some((scheme, bytes)) = self.token(header) else { return (Sent::Other, Step::Offer) };
        let (message, wrapped) = match (scheme, spnego::read(&bytes)) {
            (_, Some(Token::Raw(message))) => (message, false),
            (Scheme::Negotiate, Some(Token::Wrapped(message))) => (message, true),
            // The client hopes for another mechanism: choose ours and wait.
            (Scheme::Negotiate, Some(Token::Other)) => {
                let answer = spnego::write(spnego::State::Incomplete, None);
                return (Sent::Other, Step::Challenge(header_value(scheme, &answer)));
            }
            _ => return (Sent::Other, Step::Offer),
        };
        match ntlm::kind(message) {
            Some(1) => {
                let challenge = RandomState::new().hash_one(FileTime::now().0).to_le_bytes();
                let domain = self.accounts.first().map_or("CORP", |account| &account.domain);
                let domain = if domain.is_empty() { "CORP" } else { domain };
                let answer = ntlm::challenge(message, &challenge, domain, "REPORTS", FileTime::now());
                let wire =
                    if wrapped { spnego::write(spnego::State::Incomplete, Some(&answer)) } else { answer.clone() };
                *state = State::Challenged { negotiate: message.to_vec(), challenge, message: answer };
                (Sent::Type1, Step::Challenge(header_value(scheme, &wire)))
            }
            Some(3) => {
                let step = match self.authenticate(std::mem::take(state), message) {
                    Ok(user) => {
                        *state = State::In(user.clone());
                        let last = wrapped.then(|| spnego::write(spnego::State::Completed, None));
                        Step::Pass { user, token: last.map(|token| header_value(scheme, &token)) }
                    }
                    Err((user, why)) => Step::Refused(user, why),
                };
                (Sent::Type3, step)
            }
            _ => (Sent::Other, Step::Offer),
        }
    }

    /// Scheme and token of a header, if the scheme is one that is offered.
    fn token(&self, header: &str) -> Option<(Scheme, Vec<u8>)> {
        let (name, token) = header.split_once(' ')?;
        let scheme = *self.schemes.iter().find(|scheme| scheme.name().eq_ignore_ascii_case(name))?;
        Some((scheme, BASE64_STANDARD.decode(token.trim()).ok()?))
    }

    fn authenticate(&self, state: State, message: &[u8]) -> Result<String, (String, Refused)> {
        let user = Authenticate::parse(message).map(|answer| answer.user).unwrap_or_default();
        self.verify(state, message).map_err(|why| (user, why))
    }

    fn verify(&self, state: State, message: &[u8]) -> Result<String, Refused> {
        let State::Challenged { negotiate, challenge, message: ours } = state else { return Err(Refused::Malformed) };
        let answer = Authenticate::parse(message)?;
        let same = |account: &&Account| {
            account.user.to_uppercase() == answer.user.to_uppercase()
                && (account.domain.is_empty() || account.domain.eq_ignore_ascii_case(&answer.domain))
        };
        let account = self.accounts.iter().find(same).ok_or(Refused::UnknownAccount)?;
        let mut wrong = self.wrong.lock().unwrap_or_else(PoisonError::into_inner);
        let wrong = wrong.entry(account.user.to_uppercase()).or_default();
        if self.lockout_after.is_some_and(|limit| *wrong >= limit) {
            return Err(Refused::LockedOut);
        }
        let messages = [&negotiate[..], &ours, message];
        let verdict = answer.verify(&account.password, &challenge, messages, self.bindings, self.bindings_required);
        match verdict {
            Ok(()) => *wrong = 0,
            Err(Refused::WrongPassword) => *wrong += 1,
            Err(_) => {}
        }
        verdict.map(|()| account.user.clone())
    }
}

/// The last word of a refusal under `Negotiate`.
pub(super) fn refusal() -> String {
    header_value(Scheme::Negotiate, &spnego::write(spnego::State::Rejected, None))
}

fn header_value(scheme: Scheme, token: &[u8]) -> String {
    format!("{} {}", scheme.name(), BASE64_STANDARD.encode(token))
}
