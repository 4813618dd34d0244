//! The accepting side of NTLMv2, with a verification of its own.
//!
//! Written from the published protocol ([MS-NLMP]) and checked against its test vectors (section 4.2.4), so that a client is tried
//! against something that shares no code with it. Only NTLMv2 is taken: LM and NTLMv1 answers are refused, as any server of today
//! refuses them.

use hmac::{Hmac, KeyInit, Mac};
use md4::{Digest, Md4};
use md5::Md5;
use rc4::{Rc4, StreamCipher};

const SIGNATURE: &[u8; 8] = b"NTLMSSP\0";

/// Flags of a message ([MS-NLMP] 2.2.2.5).
mod flag {
    pub const UNICODE: u32 = 0x1;
    pub const REQUEST_TARGET: u32 = 0x4;
    pub const SIGN: u32 = 0x10;
    pub const SEAL: u32 = 0x20;
    pub const NTLM: u32 = 0x200;
    pub const ALWAYS_SIGN: u32 = 0x8000;
    pub const TARGET_TYPE_DOMAIN: u32 = 0x1_0000;
    pub const EXTENDED_SESSION: u32 = 0x8_0000;
    pub const TARGET_INFO: u32 = 0x80_0000;
    pub const VERSION: u32 = 0x200_0000;
    pub const KEY_128: u32 = 0x2000_0000;
    pub const KEY_EXCHANGE: u32 = 0x4000_0000;
    pub const KEY_56: u32 = 0x8000_0000;
}

/// Kinds of attribute in a target info ([MS-NLMP] 2.2.2.1).
mod av {
    pub const END: u16 = 0;
    pub const COMPUTER: u16 = 1;
    pub const DOMAIN: u16 = 2;
    pub const DNS_COMPUTER: u16 = 3;
    pub const DNS_DOMAIN: u16 = 4;
    pub const FLAGS: u16 = 6;
    pub const TIMESTAMP: u16 = 7;
    pub const CHANNEL_BINDINGS: u16 = 10;
    /// In `FLAGS`: the message carries a MIC.
    pub const FLAG_MIC: u32 = 2;
}

/// Why a message was not accepted. The client is told nothing of it: it gets a 401, as from a real server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Not a message of this protocol, or one cut short.
    Malformed,
    /// An LM or NTLMv1 answer, or none at all (anonymous).
    NotV2,
    /// No account of that name in that domain.
    UnknownAccount,
    /// The proof does not match the account's password.
    WrongPassword,
    /// The account is locked after too many wrong passwords; whether this one was right is not looked at.
    LockedOut,
    /// The answer announces a MIC and has none.
    MicMissing,
    /// The MIC does not match the three messages.
    MicWrong,
    /// The answer is not bound to this TLS channel.
    WrongChannel,
}

/// What a `Type 3` message says, before it is verified.
#[derive(Debug)]
pub struct Authenticate<'a> {
    /// The domain as the client sent it.
    pub domain: String,
    /// The account as the client sent it.
    pub user: String,
    nt_response: &'a [u8],
    session_key: &'a [u8],
    flags: u32,
    /// Where the MIC stands, if the message has room for one.
    mic: Option<&'a [u8]>,
}

/// HMAC-MD5 over several parts. A key of any length is allowed, so this cannot fail.
fn hmac_md5(key: &[u8], parts: &[&[u8]]) -> [u8; 16] {
    let Ok(mut mac) = Hmac::<Md5>::new_from_slice(key) else { return [0; 16] };
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

fn from_utf16(bytes: &[u8]) -> String {
    let units: Vec<u16> = bytes.chunks_exact(2).map(|unit| u16::from_le_bytes([unit[0], unit[1]])).collect();
    String::from_utf16_lossy(&units)
}

/// The key a password gives ([MS-NLMP] 3.3.2, `NTOWFv2`).
pub fn response_key(password: &str, user: &str, domain: &str) -> [u8; 16] {
    let hash = Md4::digest(utf16(password));
    hmac_md5(&hash, &[&utf16(&user.to_uppercase()), &utf16(domain)])
}

/// The proof a client must send over the server's challenge and its own blob (`NTProofStr`).
pub fn proof(key: &[u8; 16], challenge: &[u8; 8], blob: &[u8]) -> [u8; 16] {
    hmac_md5(key, &[challenge, blob])
}

/// The key both sides end up with: the base key, or the client's own key sent under it.
fn exported_key(base: [u8; 16], flags: u32, encrypted: &[u8]) -> Result<[u8; 16], Refused> {
    if flags & flag::KEY_EXCHANGE == 0 || flags & (flag::SIGN | flag::SEAL) == 0 {
        return Ok(base);
    }
    let mut key: [u8; 16] = encrypted.try_into().map_err(|_| Refused::Malformed)?;
    let mut cipher = Rc4::new_from_slice(&base).map_err(|_| Refused::Malformed)?;
    cipher.apply_keystream(&mut key);
    Ok(key)
}

/// What a TLS channel's certificate hash becomes in a target info: MD5 over the `gss_channel_bindings` structure of RFC 2744 with
/// `tls-server-end-point` (RFC 5929) in it.
pub fn channel_bindings(certificate_hash: &[u8]) -> [u8; 16] {
    let mut data = b"tls-server-end-point:".to_vec();
    data.extend_from_slice(certificate_hash);
    let mut bindings = vec![0; 16];
    bindings.extend_from_slice(&u32::try_from(data.len()).unwrap_or(u32::MAX).to_le_bytes());
    bindings.extend_from_slice(&data);
    Md5::digest(&bindings).into()
}

fn u16_at(message: &[u8], at: usize) -> Option<usize> {
    let bytes = message.get(at..at + 2)?;
    Some(usize::from(u16::from_le_bytes([bytes[0], bytes[1]])))
}

fn u32_at(message: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(message.get(at..at + 4)?.try_into().ok()?))
}

/// The bytes a length–length–offset triple points at, and the offset.
fn field(message: &[u8], at: usize) -> Option<(&[u8], usize)> {
    let length = u16_at(message, at)?;
    let offset = usize::try_from(u32_at(message, at + 4)?).ok()?;
    Some((message.get(offset..offset.checked_add(length)?)?, offset))
}

/// The kind of a message: 1, 2 or 3.
pub fn kind(message: &[u8]) -> Option<u32> {
    if message.get(..8)? != SIGNATURE {
        return None;
    }
    u32_at(message, 8)
}

/// The `Type 2` message in answer to `negotiate`.
pub fn challenge(negotiate: &[u8], challenge: &[u8; 8], domain: &str, computer: &str, now: FileTime) -> Vec<u8> {
    let asked = u32_at(negotiate, 12).unwrap_or(flag::UNICODE);
    let kept = asked
        & (flag::SIGN
            | flag::SEAL
            | flag::ALWAYS_SIGN
            | flag::EXTENDED_SESSION
            | flag::KEY_128
            | flag::KEY_EXCHANGE
            | flag::KEY_56);
    let flags = kept
        | flag::UNICODE
        | flag::REQUEST_TARGET
        | flag::NTLM
        | flag::TARGET_TYPE_DOMAIN
        | flag::TARGET_INFO
        | flag::VERSION;

    let mut info = Vec::new();
    let mut pair = |kind: u16, value: &[u8]| {
        info.extend_from_slice(&kind.to_le_bytes());
        info.extend_from_slice(&u16::try_from(value.len()).unwrap_or(u16::MAX).to_le_bytes());
        info.extend_from_slice(value);
    };
    pair(av::DOMAIN, &utf16(domain));
    pair(av::COMPUTER, &utf16(computer));
    pair(av::DNS_DOMAIN, &utf16(&format!("{}.example", domain.to_lowercase())));
    pair(av::DNS_COMPUTER, &utf16(&format!("{}.{}.example", computer.to_lowercase(), domain.to_lowercase())));
    // With a timestamp in it, a client must send a MIC.
    pair(av::TIMESTAMP, &now.0.to_le_bytes());
    pair(av::END, &[]);

    let target = utf16(domain);
    let mut message = SIGNATURE.to_vec();
    message.extend_from_slice(&2u32.to_le_bytes());
    let mut offset = 56;
    let mut triple = |message: &mut Vec<u8>, length: usize| {
        let short = u16::try_from(length).unwrap_or(u16::MAX).to_le_bytes();
        message.extend_from_slice(&short);
        message.extend_from_slice(&short);
        message.extend_from_slice(&u32::try_from(offset).unwrap_or(u32::MAX).to_le_bytes());
        offset += length;
    };
    triple(&mut message, target.len());
    message.extend_from_slice(&flags.to_le_bytes());
    message.extend_from_slice(challenge);
    message.extend_from_slice(&[0; 8]);
    triple(&mut message, info.len());
    // Version: Windows 10.0, build 17763, NTLM revision 15.
    message.extend_from_slice(&[10, 0, 0x63, 0x45, 0, 0, 0, 15]);
    message.extend_from_slice(&target);
    message.extend_from_slice(&info);
    message
}

/// A moment in Windows' counting: 100 ns since 1601.
#[derive(Clone, Copy, Debug)]
pub struct FileTime(pub u64);

impl FileTime {
    /// Now.
    pub fn now() -> Self {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Self(u64::try_from(since.as_nanos() / 100).unwrap_or_default() + 116_444_736_000_000_000)
    }
}

impl<'a> Authenticate<'a> {
    /// Reads a `Type 3` message.
    pub fn parse(message: &'a [u8]) -> Result<Self, Refused> {
        Self::fields(message).ok_or(Refused::Malformed)
    }

    fn fields(message: &'a [u8]) -> Option<Self> {
        if kind(message)? != 3 {
            return None;
        }
        let (_, lm_at) = field(message, 12)?;
        let (nt_response, nt_at) = field(message, 20)?;
        let (domain, domain_at) = field(message, 28)?;
        let (user, user_at) = field(message, 36)?;
        let (_, workstation_at) = field(message, 44)?;
        let (session_key, key_at) = field(message, 52)?;
        let flags = u32_at(message, 60)?;
        // The MIC stands behind the header and the version: where the payload begins earlier there is none.
        let payload = [lm_at, nt_at, domain_at, user_at, workstation_at, key_at].into_iter().min()?;
        let mic = (payload >= 88).then(|| message.get(72..88)).flatten();
        Some(Self { domain: from_utf16(domain), user: from_utf16(user), nt_response, session_key, flags, mic })
    }

    /// Verifies proof, MIC and channel against a password.
    ///
    /// `messages` are the three as they went over the wire. `bindings` is the hash this channel must be bound to; a client that
    /// sends none (or zeros) passes unless `bindings_required`.
    pub fn verify(
        &self,
        password: &str,
        challenge: &[u8; 8],
        messages: [&[u8]; 3],
        bindings: Option<[u8; 16]>,
        bindings_required: bool,
    ) -> Result<(), Refused> {
        // 24 bytes is NTLMv1; a v2 answer is its proof and a blob of at least 28 bytes that begins 01 01.
        if self.nt_response.len() < 16 + 28 || self.nt_response[16..18] != [1, 1] {
            return Err(Refused::NotV2);
        }
        let (sent, blob) = self.nt_response.split_at(16);
        let key = response_key(password, &self.user, &self.domain);
        if proof(&key, challenge, blob) != sent {
            return Err(Refused::WrongPassword);
        }
        let pairs = Pairs(&blob[28..]);
        let flags = pairs.get(av::FLAGS).and_then(|value| u32_at(value, 0)).unwrap_or(0);
        if flags & av::FLAG_MIC != 0 {
            let mic = self.mic.filter(|mic| mic.iter().any(|byte| *byte != 0)).ok_or(Refused::MicMissing)?;
            let session = exported_key(hmac_md5(&key, &[sent]), self.flags, self.session_key)?;
            let [negotiate, challenge, authenticate] = messages;
            let (head, tail) = (&authenticate[..72], &authenticate[88..]);
            if hmac_md5(&session, &[negotiate, challenge, head, &[0; 16], tail]) != mic {
                return Err(Refused::MicWrong);
            }
        }
        let bound = pairs.get(av::CHANNEL_BINDINGS).filter(|bound| bound.iter().any(|byte| *byte != 0));
        match (bindings, bound) {
            (Some(ours), Some(theirs)) if ours != theirs => Err(Refused::WrongChannel),
            (Some(_), None) if bindings_required => Err(Refused::WrongChannel),
            _ => Ok(()),
        }
    }
}

/// Attribute pairs of a target info.
struct Pairs<'a>(&'a [u8]);

impl<'a> Pairs<'a> {
    fn get(&self, wanted: u16) -> Option<&'a [u8]> {
        let mut rest = self.0;
        loop {
            let (kind, length) = (u16_at(rest, 0)?, u16_at(rest, 2)?);
            let value = rest.get(4..4 + length)?;
            if kind == usize::from(wanted) {
                return Some(value);
            }
            if kind == usize::from(av::END) {
                return None;
            }
            rest = &rest[4 + length..];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHALLENGE: [u8; 8] = [0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef];

    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
        digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
    }

    /// The blob (`temp`) of 4.2.4.1.3.
    fn blob() -> Vec<u8> {
        hex("01010000 00000000 0000000000000000 aaaaaaaaaaaaaaaa 00000000
             02000c0044006f006d00610069006e00 01000c005300650072007600650072 00 00000000 00000000")
    }

    #[test]
    fn the_published_vectors_of_section_4_2_4_hold() {
        assert_eq!(Md4::digest(utf16("Password")).to_vec(), hex("a4f49c406510bdcab6824ee7c30fd852"), "NTOWFv1");
        let key = response_key("Password", "User", "Domain");
        assert_eq!(key.to_vec(), hex("0c868a403bfd7a93a3001ef22ef02e3f"), "NTOWFv2");
        let sent = proof(&key, &CHALLENGE, &blob());
        assert_eq!(sent.to_vec(), hex("68cd0ab851e51c96aabc927bebef6a1c"), "NTProofStr");
        let base = hmac_md5(&key, &[&sent]);
        assert_eq!(base.to_vec(), hex("8de40ccadbc14a82f15cb0ad0de95ca3"), "session base key");
        let encrypted = hex("c5dad2544fc9799094ce1ce90bc9d03e");
        let flags = flag::KEY_EXCHANGE | flag::SIGN;
        assert_eq!(exported_key(base, flags, &encrypted).unwrap(), [0x55; 16], "exported session key");
        assert_eq!(exported_key(base, flag::KEY_EXCHANGE, &encrypted).unwrap(), base, "nothing to sign, no exchange");
    }

    /// A `Type 3` message as a client writes it.
    struct Message {
        blob: Vec<u8>,
        proof: [u8; 16],
        mic: Option<[u8; 16]>,
    }

    impl Message {
        fn bytes(&self) -> Vec<u8> {
            let nt = [&self.proof[..], &self.blob].concat();
            let (domain, user) = (utf16("Domain"), utf16("User"));
            let mut message = [SIGNATURE, &3u32.to_le_bytes()[..]].concat();
            let mut offset = if self.mic.is_some() { 88 } else { 72 };
            for part in [0, nt.len(), domain.len(), user.len(), 0, 0] {
                let length = (part as u16).to_le_bytes();
                message.extend([length, length].concat());
                message.extend((offset as u32).to_le_bytes());
                offset += part;
            }
            message.extend((flag::UNICODE | flag::VERSION).to_le_bytes());
            message.extend([0; 8]);
            message.extend(self.mic.into_iter().flatten());
            message.extend([nt, domain, user].concat());
            message
        }
    }

    fn with_pair(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut blob = blob();
        let end = blob.len() - 8;
        let pair = [&kind.to_le_bytes()[..], &(value.len() as u16).to_le_bytes(), value].concat();
        blob.splice(end..end, pair);
        blob
    }

    fn check(message: &[u8], password: &str, bindings: Option<[u8; 16]>, required: bool) -> Result<(), Refused> {
        Authenticate::parse(message)?.verify(password, &CHALLENGE, [b"one", b"two", message], bindings, required)
    }

    #[test]
    fn a_proof_passes_with_its_password_and_no_other() {
        let blob = blob();
        let sent = proof(&response_key("Password", "User", "Domain"), &CHALLENGE, &blob);
        let message = Message { blob, proof: sent, mic: None }.bytes();
        assert_eq!(check(&message, "Password", None, false), Ok(()));
        assert_eq!(check(&message, "password", None, false), Err(Refused::WrongPassword));
        assert_eq!(check(&message[..80], "Password", None, false), Err(Refused::Malformed));
        let v1 = Message { blob: vec![0; 8], proof: [7; 16], mic: None }.bytes();
        assert_eq!(check(&v1, "Password", None, false), Err(Refused::NotV2));
    }

    #[test]
    fn a_mic_that_is_announced_must_be_there_and_match() {
        let key = response_key("Password", "User", "Domain");
        let blob = with_pair(av::FLAGS, &av::FLAG_MIC.to_le_bytes());
        let sent = proof(&key, &CHALLENGE, &blob);
        let message = |mic| Message { blob: blob.clone(), proof: sent, mic }.bytes();
        assert_eq!(check(&message(None), "Password", None, false), Err(Refused::MicMissing));
        let zeroed = message(Some([0; 16]));
        assert_eq!(check(&zeroed, "Password", None, false), Err(Refused::MicMissing));
        assert_eq!(check(&message(Some([1; 16])), "Password", None, false), Err(Refused::MicWrong));
        let right = hmac_md5(&hmac_md5(&key, &[&sent]), &[b"one", b"two", &zeroed]);
        assert_eq!(check(&message(Some(right)), "Password", None, false), Ok(()));
    }

    #[test]
    fn an_answer_bound_to_another_channel_is_refused() {
        let key = response_key("Password", "User", "Domain");
        let ours = channel_bindings(&[1; 32]);
        let message = |blob: Vec<u8>| Message { proof: proof(&key, &CHALLENGE, &blob), blob, mic: None }.bytes();
        let bound = message(with_pair(av::CHANNEL_BINDINGS, &ours));
        let elsewhere = message(with_pair(av::CHANNEL_BINDINGS, &channel_bindings(&[2; 32])));
        let unbound = message(blob());
        for (message, required, expect) in [
            (&bound, true, Ok(())),
            (&elsewhere, false, Err(Refused::WrongChannel)),
            (&unbound, false, Ok(())),
            (&unbound, true, Err(Refused::WrongChannel)),
        ] {
            assert_eq!(check(message, "Password", Some(ours), required), expect);
        }
    }

    #[test]
    fn the_challenge_can_be_read_back() {
        let negotiate = [SIGNATURE, &1u32.to_le_bytes()[..], &flag::KEY_128.to_le_bytes()].concat();
        let message = challenge(&negotiate, &CHALLENGE, "CORP", "REPORTS", FileTime(5));
        assert_eq!((kind(&negotiate), kind(&message)), (Some(1), Some(2)));
        assert_eq!(&message[24..32], &CHALLENGE);
        assert_eq!(from_utf16(field(&message, 12).unwrap().0), "CORP");
        let info = Pairs(field(&message, 40).unwrap().0);
        assert_eq!(from_utf16(info.get(av::COMPUTER).unwrap()), "REPORTS");
        assert_eq!(info.get(av::TIMESTAMP), Some(&5u64.to_le_bytes()[..]));
        assert_eq!(info.get(av::CHANNEL_BINDINGS), None);
        let flags = u32_at(&message, 20).unwrap();
        assert!(flags & flag::KEY_128 != 0 && flags & flag::KEY_EXCHANGE == 0, "only what was asked for");
    }
}
