//! What a config may say about HTTP. Connectors flatten [`HttpOptions`] into their own options.

use std::{borrow::Cow, collections::BTreeMap, fmt, path::PathBuf, str::FromStr, time::Duration};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use towpath_core::{Period, Secret, Size};

/// How to speak HTTP with a server.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct HttpOptions {
    /// How to sign in: none, basic, bearer, api_key, oauth2, ntlm or negotiate.
    pub auth: Auth,
    /// How long to wait for what.
    pub timeouts: Timeouts,
    /// The most bytes an answer may have, after decompression. Default: no limit; answers are streamed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_response: Option<Size>,
    /// The proxy: a URL such as `http://proxy.example:3128`, or `none`. Default: `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY` and
    /// `NO_PROXY` of the environment.
    pub proxy: Proxy,
    /// A PEM file with certificates of authorities to trust besides the system's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// The one certificate the server may show, self-signed or not: its fingerprint as `sha256:…`, or a PEM file. The name and
    /// the dates in it are then not looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pinned_certificate: Option<Pin>,
    /// What to call ourselves. Default: `towpath/` and the version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_agent: Option<String>,
    /// Headers for every request. They count as secrets and never leave the server they were meant for.
    pub headers: BTreeMap<String, Secret>,
}

/// How to sign in.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum Auth {
    /// Not at all.
    #[default]
    None,
    /// A name and a password in the clear; over https only, if you can.
    Basic {
        /// The name.
        username: String,
        /// The password.
        password: Secret,
    },
    /// A token in the Authorization header.
    Bearer {
        /// The token.
        token: Secret,
    },
    /// A key in a header or in the query.
    ApiKey {
        /// The header that carries the key. Either this or `query`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        header: Option<String>,
        /// The query parameter that carries the key. Either this or `header`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        query: Option<String>,
        /// The key.
        value: Secret,
    },
    /// A token that is renewed: OAuth2. The newest one is kept in the state directory.
    #[serde(rename = "oauth2")]
    OAuth2(OAuth2),
    /// A Windows account, by NTLM.
    Ntlm {
        /// The domain. May also stand in the name: `CORP\loader`, `loader@corp.example`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        domain: Option<String>,
        /// The name.
        username: String,
        /// The password.
        password: Secret,
    },
    /// A Windows account, by NTLM inside Negotiate, for servers that offer only that.
    Negotiate {
        /// The domain. May also stand in the name: `CORP\loader`, `loader@corp.example`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        domain: Option<String>,
        /// The name.
        username: String,
        /// The password.
        password: Secret,
    },
}

/// An app that was let in, and how its tokens are got.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OAuth2 {
    /// Where tokens are given: `https://oauth.example/oauth/token`.
    pub token_url: String,
    /// The app's name.
    pub client_id: String,
    /// The app's secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_secret: Option<Secret>,
    /// What the first token is got with. Later ones are got with what the server gave then, so this may have expired long ago; put another one
    /// here to begin anew. Without it the app gets a token of its own (client_credentials).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refresh_token: Option<Secret>,
    /// What is asked for, in the server's words. Default: what the app was let in for
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// How long a token is good where the server does not say. Default: 1h
    #[serde(default = "an_hour")]
    pub expires_in: Period,
    /// Where the app's name and secret stand. Default: header
    #[serde(default)]
    pub client_auth: ClientAuth,
}

fn an_hour() -> Period {
    Period::seconds(3600)
}

/// Where an app's name and secret stand in a request for a token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ClientAuth {
    /// In the Authorization header, as with basic.
    #[default]
    Header,
    /// In the body.
    Body,
}

/// How long to wait for what. Each is a limit of its own: a report is silent for minutes and then flows.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Timeouts {
    /// For a connection, encryption included. Default: 15s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connect: Option<Period>,
    /// From the last byte sent to the first byte of the answer. Default: 5m.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_byte: Option<Period>,
    /// Between two pieces of the answer. Default: 1m.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle: Option<Period>,
    /// For everything, from the first byte sent to the last one read. Default: no limit of its own, only the call's deadline.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total: Option<Period>,
}

impl Timeouts {
    pub(crate) fn connecting(&self) -> Duration {
        self.connect.map_or(Duration::from_secs(15), |period| period.0)
    }
    pub(crate) fn first_byte(&self) -> Duration {
        self.first_byte.map_or(Duration::from_secs(300), |period| period.0)
    }
    pub(crate) fn idle(&self) -> Duration {
        self.idle.map_or(Duration::from_secs(60), |period| period.0)
    }
}

/// Which proxy to use.
#[derive(Clone, Debug, Default)]
pub enum Proxy {
    /// What the environment says.
    #[default]
    Environment,
    /// None.
    Direct,
    /// This one, as a URL; may hold a name and a password.
    Url(Secret),
}

impl Serialize for Proxy {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Environment => serializer.serialize_none(),
            Self::Direct => serializer.serialize_str("none"),
            Self::Url(url) => url.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Proxy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(match Option::<String>::deserialize(deserializer)? {
            None => Self::Environment,
            Some(text) if text == "none" => Self::Direct,
            Some(text) => {
                let known = text.starts_with("http://") || text.starts_with("https://");
                // The text itself may hold a password, so it is not shown.
                let url = url::Url::parse(&text).ok().filter(|url| known && url.has_host());
                url.ok_or_else(|| D::Error::custom("not a proxy; write http://host:port, or none"))?;
                Self::Url(Secret::new(text))
            }
        })
    }
}

impl JsonSchema for Proxy {
    fn schema_name() -> Cow<'static, str> {
        "Proxy".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["string", "null"], "pattern": "^(none|https?://.+)$", "writeOnly": true })
    }
}

/// The one certificate a server may show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pin {
    /// The SHA-256 of its DER encoding.
    Sha256([u8; 32]),
    /// A PEM file that holds it.
    File(PathBuf),
}

impl FromStr for Pin {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let Some(hex) = text.strip_prefix("sha256:") else { return Ok(Self::File(text.into())) };
        let digits: Vec<u32> =
            hex.chars().filter(|c| *c != ':').map(|c| c.to_digit(16).unwrap_or(u32::from(u8::MAX))).collect();
        let bytes: Option<Vec<u8>> = digits
            .chunks(2)
            .map(|pair| Some(u8::try_from(pair[0]).ok()? << 4 | u8::try_from(*pair.get(1)?).ok()?))
            .collect();
        let right = digits.iter().all(|digit| *digit < 16);
        bytes.filter(|_| right).and_then(|bytes| bytes.try_into().ok()).map(Self::Sha256).ok_or_else(|| {
            format!("'{text}' is not a fingerprint; write sha256: and 64 hexadecimal digits, or the path of a PEM file")
        })
    }
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sha256(bytes) => {
                f.write_str("sha256:")?;
                bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
            Self::File(path) => path.display().fmt(f),
        }
    }
}

impl Serialize for Pin {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Pin {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Cow::<'de, str>::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

impl JsonSchema for Pin {
    fn schema_name() -> Cow<'static, str> {
        "Pin".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "examples": ["sha256:…", "server.pem"] })
    }
}
