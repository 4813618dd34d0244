//! Just enough of SPNEGO (RFC 4178) to carry NTLM under `Negotiate`: the token of another mechanism in, ours out.

/// OID 1.3.6.1.4.1.311.2.2.10, in DER.
const NTLM: &[u8] = &[0x06, 0x0a, 0x2b, 0x06, 0x01, 0x04, 0x01, 0x82, 0x37, 0x02, 0x02, 0x0a];

/// What a client sent under `Negotiate`.
#[derive(Debug, PartialEq, Eq)]
pub enum Token<'a> {
    /// NTLM as it is, without a wrapping.
    Raw(&'a [u8]),
    /// An NTLM message in a SPNEGO token.
    Wrapped(&'a [u8]),
    /// A SPNEGO token without an NTLM message in it: the client hopes for another mechanism.
    Other,
}

/// How far the exchange is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Signed in.
    Completed = 0,
    /// More to come.
    Incomplete = 1,
    /// Refused: a last word, and not a new challenge.
    Rejected = 2,
}

/// One DER element: its tag, its content, what follows.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = if first < 0x80 {
        (usize::from(first), rest)
    } else {
        let count = usize::from(first & 0x7f);
        let bytes = rest.get(..count).filter(|_| count <= 4)?;
        (bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), &rest[count..])
    };
    Some((tag, rest.get(..length)?, &rest[length..]))
}

/// Reads what a client sent; `None` if it is neither SPNEGO nor NTLM.
pub fn read(token: &[u8]) -> Option<Token<'_>> {
    if token.starts_with(b"NTLMSSP\0") {
        return Some(Token::Raw(token));
    }
    let (tag, content, _) = element(token)?;
    let inner = match tag {
        // The first token: [APPLICATION 0] { OID, [0] NegTokenInit }
        0x60 => {
            let (_, _, rest) = element(content)?;
            element(rest)?.1
        }
        // Every other: [1] NegTokenResp
        0xa1 => content,
        _ => return None,
    };
    let (_, mut fields, _) = element(inner)?;
    while let Some((tag, content, rest)) = element(fields) {
        // [2]: mechToken of the first, responseToken of the others.
        if tag == 0xa2 {
            let (_, message, _) = element(content)?;
            return Some(if message.starts_with(b"NTLMSSP\0") { Token::Wrapped(message) } else { Token::Other });
        }
        fields = rest;
    }
    Some(Token::Other)
}

fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    let length = content.len().to_be_bytes();
    let significant = &length[length.iter().position(|byte| *byte != 0).unwrap_or(length.len() - 1)..];
    if content.len() >= 0x80 {
        out.push(0x80 | u8::try_from(significant.len()).unwrap_or(8));
    }
    out.extend_from_slice(significant);
    out.extend_from_slice(content);
    out
}

/// A server's answer (`NegTokenResp`) that chooses NTLM.
pub fn write(state: State, message: Option<&[u8]>) -> Vec<u8> {
    let mut fields = der(0xa0, &der(0x0a, &[state as u8]));
    if state == State::Incomplete {
        fields.extend(der(0xa1, NTLM));
    }
    if let Some(message) = message {
        fields.extend(der(0xa2, &der(0x04, message)));
    }
    der(0xa1, &der(0x30, &fields))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_unwrapped_and_rubbish_is_not() {
        let message = [b"NTLMSSP\0".to_vec(), vec![7; 300]].concat();
        let mechs = der(0xa0, &der(0x30, NTLM));
        let init = |token: &[u8]| {
            let fields = [mechs.clone(), der(0xa2, &der(0x04, token))].concat();
            let spnego = [0x06, 0x06, 0x2b, 0x06, 0x01, 0x05, 0x05, 0x02].to_vec();
            der(0x60, &[spnego, der(0xa0, &der(0x30, &fields))].concat())
        };
        assert_eq!(read(&message), Some(Token::Raw(&message)));
        assert_eq!(read(&init(&message)), Some(Token::Wrapped(&message)));
        assert_eq!(read(&init(b"kerberos")), Some(Token::Other));
        assert_eq!(read(&write(State::Incomplete, Some(&message))), Some(Token::Wrapped(&message)));
        assert_eq!(read(&write(State::Completed, None)), Some(Token::Other));
        assert_eq!(write(State::Rejected, None), [0xa1, 0x07, 0x30, 0x05, 0xa0, 0x03, 0x0a, 0x01, 0x02]);
        for rubbish in [&b""[..], b"x", &[0x60, 0x05, 1], &[0x60, 0x84, 0xff, 0xff, 0xff, 0xff]] {
            assert_eq!(read(rubbish), None, "{rubbish:?}");
        }
    }
}
