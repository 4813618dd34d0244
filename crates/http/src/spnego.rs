//! NTLM inside SPNEGO (RFC 4178), as servers expect it behind `Negotiate`. NTLM is the only mechanism offered.

use der::{Decode, Encode, SliceReader, Tag, TagNumber, asn1::AnyRef};
use towpath_core::{Error, Result};

/// 1.3.6.1.5.5.2
const SPNEGO: &[u8] = &[0x2b, 6, 1, 5, 5, 2];
/// 1.3.6.1.4.1.311.2.2.10
const NTLMSSP: &[u8] = &[0x2b, 6, 1, 4, 1, 0x82, 0x37, 2, 2, 10];
/// Every NTLM message begins so.
const NTLM: &[u8] = b"NTLMSSP\0";
/// `accept-incomplete`
const INCOMPLETE: &[u8] = &[1];
/// The signature under the list of mechanisms (`mechListMIC`). Where NTLM protects its own messages, as ours do, servers want one; where it
/// is not to sign anything else, as over http, the signature is this, the same for whatever is signed (MS-NLMP 3.4.4, ALWAYS_SIGN
/// without SIGN).
const SIGNATURE: [u8; 16] = [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// The first message: a NegTokenInit.
pub(crate) fn wrap_first(token: &[u8]) -> Result<Vec<u8>> {
    let wrap = || {
        let mechanisms = tlv(Tag::Sequence, &tlv(Tag::ObjectIdentifier, NTLMSSP)?)?;
        let token = tlv(Tag::OctetString, token)?;
        let init = [tlv(context(0), &mechanisms)?, tlv(context(2), &token)?].concat();
        let init = tlv(context(0), &tlv(Tag::Sequence, &init)?)?;
        let application = Tag::Application { constructed: true, number: TagNumber(0) };
        tlv(application, &[tlv(Tag::ObjectIdentifier, SPNEGO)?, init].concat())
    };
    wrap().map_err(|error: der::Error| Error::internal("cannot wrap a sign-in").because(error))
}

/// The last message: a NegTokenResp.
pub(crate) fn wrap_last(token: &[u8]) -> Result<Vec<u8>> {
    let wrap = || {
        let state = tlv(context(0), &tlv(Tag::Enumerated, INCOMPLETE)?)?;
        let token = tlv(context(2), &tlv(Tag::OctetString, token)?)?;
        let signature = tlv(context(3), &tlv(Tag::OctetString, &SIGNATURE)?)?;
        tlv(context(1), &tlv(Tag::Sequence, &[state, token, signature].concat())?)
    };
    wrap().map_err(|error: der::Error| Error::internal("cannot wrap a sign-in").because(error))
}

/// The mechanism's token inside the server's answer, and whether it was wrapped at all: some servers speak bare NTLM behind Negotiate.
///
/// # Errors
/// Unsupported, if the server chose another mechanism; Data, if the answer is no NegTokenResp.
pub(crate) fn unwrap(answer: Vec<u8>) -> Result<(Vec<u8>, bool)> {
    if answer.starts_with(NTLM) {
        return Ok((answer, false));
    }
    let wrong = || Error::data("the server's answer to Negotiate makes no sense");
    let (mechanism, token) = response(&answer).map_err(|error: der::Error| wrong().because(error))?;
    if mechanism.is_some_and(|mechanism| mechanism != NTLMSSP) {
        return Err(Error::unsupported(
            "the server wants another sign-in inside Negotiate than NTLM, such as Kerberos",
        )
        .hint("allow NTLM on the server, or set auth.type to ntlm if it offers that"));
    }
    Ok((token.ok_or_else(wrong)?.to_vec(), true))
}

type Bytes<'a> = Option<&'a [u8]>;

/// `supportedMech` and `responseToken` of a NegTokenResp.
fn response(answer: &[u8]) -> der::Result<(Bytes<'_>, Bytes<'_>)> {
    let response = AnyRef::from_der(answer)?;
    let sequence = AnyRef::from_der(response.value())?;
    let mut fields = SliceReader::new(sequence.value())?;
    let (mut mechanism, mut token) = (None, None);
    while let Ok(field) = AnyRef::decode(&mut fields) {
        let number = match der::Tagged::tag(&field) {
            Tag::ContextSpecific { number, .. } => number,
            _ => continue,
        };
        let inner = AnyRef::from_der(field.value())?.value();
        if number == TagNumber(1) {
            mechanism = Some(inner);
        } else if number == TagNumber(2) {
            token = Some(inner);
        }
    }
    Ok((mechanism, token))
}

fn tlv(tag: Tag, value: &[u8]) -> der::Result<Vec<u8>> {
    AnyRef::new(tag, value)?.to_der()
}

fn context(number: u32) -> Tag {
    Tag::ContextSpecific { constructed: true, number: TagNumber(number) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_first_message_offers_ntlm_alone() {
        let wrapped = wrap_first(b"NTLMSSP\0x").unwrap();
        let expected = [
            [0x60, 0x29].as_slice(),
            &[0x06, 6],
            SPNEGO,
            &[0xa0, 0x1f, 0x30, 0x1d, 0xa0, 0x0e, 0x30, 0x0c, 0x06, 0x0a],
            NTLMSSP,
            &[0xa2, 0x0b, 0x04, 9],
            b"NTLMSSP\0x",
        ]
        .concat();
        assert_eq!(wrapped, expected);
    }

    #[test]
    fn an_answer_gives_its_token() {
        let long = [NTLM, &[7; 300]].concat();
        assert_eq!(unwrap(wrap_last(&long).unwrap()).unwrap(), (long.clone(), true));
        assert_eq!(unwrap(long.clone()).unwrap(), (long, false));
        let kerberos = [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x12, 1, 2, 2];
        let chosen = tlv(context(1), &tlv(Tag::ObjectIdentifier, &kerberos).unwrap()).unwrap();
        let other = tlv(context(1), &tlv(Tag::Sequence, &chosen).unwrap()).unwrap();
        assert_eq!(unwrap(other).unwrap_err().kind(), towpath_core::ErrorKind::Unsupported);
        for wrong in [b"".as_slice(), b"x", &[0xa1, 0x80], &[0x60, 2, 5, 0], &[0xa1, 2, 0x30, 0]] {
            assert_eq!(unwrap(wrong.to_vec()).unwrap_err().kind(), towpath_core::ErrorKind::Data, "{wrong:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn whatever_a_server_sends_nothing_breaks(answer in proptest::collection::vec(proptest::num::u8::ANY, 0..64)) {
            let _ = unwrap(answer);
        }
    }
}
