//! The `tls-server-end-point` channel binding of RFC 5929: it ties a sign-in to the certificate seen, so that it cannot be relayed.

use der::{
    Decode, SliceReader,
    asn1::{AnyRef, ObjectIdentifier},
};
use sha2::{Digest, Sha256, Sha384, Sha512};

/// The binding for a server's certificate (DER): the prefix and the hash of the certificate, by the hash its signature uses, SHA-256
/// in the place of MD5 and SHA-1. `None` where the RFC defines none: a signature without one hash.
pub(crate) fn end_point(certificate: &[u8]) -> Option<Vec<u8>> {
    let hash = match signature_hash(certificate).ok().flatten()? {
        Hash::Sha256 => Sha256::digest(certificate).to_vec(),
        Hash::Sha384 => Sha384::digest(certificate).to_vec(),
        Hash::Sha512 => Sha512::digest(certificate).to_vec(),
    };
    Some([b"tls-server-end-point:".as_slice(), &hash].concat())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hash {
    Sha256,
    Sha384,
    Sha512,
}

/// The hash of the certificate's own signature.
fn signature_hash(certificate: &[u8]) -> der::Result<Option<Hash>> {
    let mut fields = SliceReader::new(AnyRef::from_der(certificate)?.value())?;
    let _signed = AnyRef::decode(&mut fields)?;
    let algorithm = AnyRef::decode(&mut fields)?;
    let mut algorithm = SliceReader::new(algorithm.value())?;
    let name = ObjectIdentifier::decode(&mut algorithm)?;
    if name.to_string() != "1.2.840.113549.1.1.10" {
        return Ok(by_name(&name));
    }
    // RSA-PSS names its hash in the parameters: SEQUENCE { [0] SEQUENCE { hash … } … }; without it, SHA-1.
    let parameters = AnyRef::decode(&mut algorithm)?;
    let Ok(first) = SliceReader::new(parameters.value()).and_then(|mut fields| AnyRef::decode(&mut fields)) else {
        return Ok(Some(Hash::Sha256));
    };
    let hash = AnyRef::from_der(first.value())?;
    Ok(by_name(&ObjectIdentifier::decode(&mut SliceReader::new(hash.value())?)?))
}

fn by_name(name: &ObjectIdentifier) -> Option<Hash> {
    Some(match name.to_string().as_str() {
        // RSA with MD5, SHA-1, SHA-256; ECDSA with SHA-1, SHA-256; DSA with SHA-1, SHA-256; the bare SHA-1 and SHA-256.
        "1.2.840.113549.1.1.4"
        | "1.2.840.113549.1.1.5"
        | "1.2.840.113549.1.1.11"
        | "1.2.840.10045.4.1"
        | "1.2.840.10045.4.3.2"
        | "1.2.840.10040.4.3"
        | "2.16.840.1.101.3.4.3.2"
        | "1.3.14.3.2.26"
        | "2.16.840.1.101.3.4.2.1" => Hash::Sha256,
        "1.2.840.113549.1.1.12" | "1.2.840.10045.4.3.3" | "2.16.840.1.101.3.4.2.2" => Hash::Sha384,
        "1.2.840.113549.1.1.13" | "1.2.840.10045.4.3.4" | "2.16.840.1.101.3.4.2.3" => Hash::Sha512,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_that_of_the_signature() {
        for (algorithm, hash, length) in [
            (&rcgen::PKCS_ECDSA_P256_SHA256, Some(Hash::Sha256), 32),
            (&rcgen::PKCS_ECDSA_P384_SHA384, Some(Hash::Sha384), 48),
            (&rcgen::PKCS_ED25519, None, 0),
        ] {
            let key = rcgen::KeyPair::generate_for(algorithm).unwrap();
            let certificate =
                rcgen::CertificateParams::new(["a.example".to_owned()]).unwrap().self_signed(&key).unwrap();
            assert_eq!(signature_hash(certificate.der()).unwrap(), hash, "{algorithm:?}");
            let binding = end_point(certificate.der());
            assert_eq!(binding.map(|binding| binding.len()), hash.map(|_| 21 + length), "{algorithm:?}");
        }
        assert!(end_point(b"not a certificate").is_none());
    }

    #[test]
    fn rsa_pss_names_its_hash_in_its_parameters() {
        // SEQUENCE { SEQUENCE {}, SEQUENCE { rsassaPss, SEQUENCE { [0] SEQUENCE { sha384 } } } }
        let hash = [0x30, 0x0b, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x02];
        let tagged = [&[0xa0, 13], hash.as_slice()].concat();
        let parameters = [&[0x30, 15], tagged.as_slice()].concat();
        let name = [0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0a];
        let with = |parameters: &[u8]| {
            let algorithm =
                [&[0x30, u8::try_from(11 + parameters.len()).unwrap()], name.as_slice(), parameters].concat();
            [&[0x30, u8::try_from(2 + algorithm.len()).unwrap(), 0x30, 0], algorithm.as_slice()].concat()
        };
        assert_eq!(signature_hash(&with(&parameters)).unwrap(), Some(Hash::Sha384));
        assert_eq!(signature_hash(&with(&[0x30, 0])).unwrap(), Some(Hash::Sha256));
    }
}
