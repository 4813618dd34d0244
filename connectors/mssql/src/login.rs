//! Connection strings: a URL, an ADO string or fields become one [`Login`].

use std::{borrow::Cow, fmt};

use towpath_core::{Error, Period, Result, Secret};
use url::Url;

use crate::config::{ConnectionOptions, Encrypt, SignIn};

/// Where the server is and who asks, checked.
#[derive(Clone)]
pub(crate) struct Login {
    pub(crate) at: ConnectionOptions,
    pub(crate) user: String,
    pub(crate) password: Secret,
}

/// Never shows the password, nor the user.
impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.origin())
    }
}

const FORM: &str =
    "write mssql://user:password@host:1433/database, or Server=host,1433;Database=…;User Id=…;Password=…";

fn wrong(what: impl fmt::Display) -> Error {
    Error::config(format!("connection: {what}")).hint(FORM)
}

impl Login {
    /// Reads a URL or an ADO string. Nothing of the text is repeated in an error: it holds a password.
    pub(crate) fn parse(text: &Secret) -> Result<Self> {
        let text = text.expose().trim();
        if is_unset(text) {
            // A plan is made without the variable: who asks and whom is then not known, and nobody is asked.
            let mut at = ConnectionOptions::of(text.to_owned());
            (at.user, at.password) = (Some(text.to_owned()), Some(Secret::new(text.to_owned())));
            return Self::new(at);
        }
        match text.split_once("://") {
            Some(("mssql" | "sqlserver", _)) => from_url(text),
            Some(_) => Err(wrong("its scheme is not mssql")),
            None => from_ado(text),
        }
        .and_then(Self::new)
    }

    /// Checks fields.
    pub(crate) fn new(at: ConnectionOptions) -> Result<Self> {
        let unsupported = |what: &str| {
            Err(Error::unsupported(format!("connection: signing in with {what} is not offered yet"))
                .hint("use a SQL login: user and password"))
        };
        match at.auth {
            SignIn::Sql => {}
            SignIn::Integrated => return unsupported("the account of the process (integrated)"),
            SignIn::Aad => return unsupported("a token of Azure's directory (aad)"),
        }
        if at.host.is_empty() {
            return Err(wrong("names no host"));
        }
        if at.host.contains('\\') {
            return Err(Error::unsupported("connection: a named instance is not looked up")
                .hint("give the instance's port: host and port"));
        }
        if !(512..=32767).contains(&at.packet_size) {
            return Err(wrong("packet_size must be from 512 to 32767"));
        }
        let (Some(user), Some(password)) = (at.user.clone(), at.password.clone()) else {
            return Err(wrong("needs a user and a password"));
        };
        if at.encrypt == Encrypt::Off && (at.trust.is_some() || at.pin.is_some()) {
            return Err(wrong("encrypt=off leaves nothing to trust or pin"));
        }
        Ok(Self { at, user, password })
    }

    /// The server, as the guard and errors name it.
    pub(crate) fn origin(&self) -> String {
        if is_unset(&self.at.host) {
            return format!("mssql://{}", self.at.host);
        }
        format!("mssql://{}:{}", self.at.host, self.at.port)
    }

    /// Whether a variable in it has no value, as a plan may have it.
    pub(crate) fn has_unset(&self) -> bool {
        [&*self.at.host, &*self.user, self.password.expose()].iter().any(|part| part.contains("${"))
    }

    /// Server and database, without secrets.
    pub(crate) fn place(&self) -> String {
        match &self.at.database {
            Some(database) => format!("{}/{database}", self.origin()),
            None => self.origin(),
        }
    }
}

/// Whether a text is a variable that has no value, and nothing else.
fn is_unset(text: &str) -> bool {
    text.starts_with("${") && text.find('}') == Some(text.len() - 1)
}

fn from_url(text: &str) -> Result<ConnectionOptions> {
    let url = Url::parse(text).map_err(|error| wrong(format!("is no URL: {error}")))?;
    let decoded = |text: &str| -> Result<String> {
        let bytes = percent_decoded(text).ok_or_else(|| wrong("has a % that is none of a percent-encoding"))?;
        String::from_utf8(bytes).map_err(|_| wrong("is not UTF-8 where it is percent-encoded"))
    };
    let host = url.host_str().unwrap_or_default();
    let mut at = ConnectionOptions::of(decoded(host.trim_matches(['[', ']']))?);
    at.port = url.port().unwrap_or(1433);
    if !url.username().is_empty() {
        at.user = Some(decoded(url.username())?);
    }
    at.password = url.password().map(&decoded).transpose()?.map(Secret::new);
    let database = url.path().trim_start_matches('/');
    if !database.is_empty() {
        at.database = Some(decoded(database)?);
    }
    for (key, value) in url.query_pairs() {
        option(&mut at, &key, &value)?;
    }
    Ok(at)
}

fn percent_decoded(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let mut digit = || char::from(rest.next()?).to_digit(16);
            bytes.push(u8::try_from(digit()? << 4 | digit()?).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    Some(bytes)
}

fn option(at: &mut ConnectionOptions, key: &str, value: &str) -> Result<()> {
    match key.to_ascii_lowercase().as_str() {
        "encrypt" => at.encrypt = encrypt(value)?,
        "trust" => at.trust = Some(value.into()),
        "pin" => at.pin = Some(value.parse().map_err(wrong)?),
        "application_name" => value.clone_into(&mut at.application_name),
        "packet_size" => at.packet_size = value.parse().map_err(|_| wrong("packet_size is no number"))?,
        "connect_timeout" => at.connect_timeout = value.parse().map_err(wrong)?,
        "auth" => {
            at.auth = match value {
                "sql" => SignIn::Sql,
                "integrated" => SignIn::Integrated,
                "aad" => SignIn::Aad,
                _ => return Err(wrong("auth is sql, integrated or aad")),
            }
        }
        other => {
            return Err(wrong(format!("'{other}' is not known"))
                .hint("known are encrypt, trust, pin, application_name, packet_size, connect_timeout, auth"));
        }
    }
    Ok(())
}

fn encrypt(value: &str) -> Result<Encrypt> {
    Ok(match value.to_ascii_lowercase().as_str() {
        "on" | "yes" | "true" | "mandatory" | "required" => Encrypt::On,
        "off" | "no" | "false" | "optional" => Encrypt::Off,
        "strict" => Encrypt::Strict,
        _ => return Err(wrong("encrypt is on, strict or off")),
    })
}

/// An ADO.NET connection string: `key=value` pairs with `;` between them; a value may stand in quotes, which are doubled inside. The keys
/// are those of Microsoft's SqlConnection.ConnectionString.
fn from_ado(text: &str) -> Result<ConnectionOptions> {
    let mut at = ConnectionOptions::of(String::new());
    for (key, value) in pairs(text)? {
        let value = value.as_ref();
        match key.to_ascii_lowercase().replace(' ', "").as_str() {
            "server" | "datasource" | "addr" | "address" | "networkaddress" => {
                let server = value.strip_prefix("tcp:").unwrap_or(value);
                let (host, port) = server.split_once(',').unwrap_or((server, "1433"));
                host.trim().clone_into(&mut at.host);
                at.port = port.trim().parse().map_err(|_| wrong("the port is no number"))?;
            }
            "database" | "initialcatalog" => at.database = Some(value.to_owned()),
            "userid" | "uid" | "user" => at.user = Some(value.to_owned()),
            "password" | "pwd" => at.password = Some(Secret::new(value.to_owned())),
            "encrypt" => at.encrypt = encrypt(value)?,
            "applicationname" | "app" => value.clone_into(&mut at.application_name),
            "packetsize" => at.packet_size = value.parse().map_err(|_| wrong("Packet Size is no number"))?,
            "connecttimeout" | "connectiontimeout" | "timeout" => {
                at.connect_timeout =
                    Period::seconds(value.parse().map_err(|_| wrong("Connect Timeout is no number of seconds"))?);
            }
            "servercertificate" | "trust" => at.trust = Some(value.into()),
            // Ours: what an error shows to be pinned can be pinned here too.
            "pin" => at.pin = Some(value.parse().map_err(wrong)?),
            "integratedsecurity" | "trusted_connection" => {
                if !matches!(value.to_ascii_lowercase().as_str(), "no" | "false") {
                    at.auth = SignIn::Integrated;
                }
            }
            "authentication" => {
                at.auth = if value.eq_ignore_ascii_case("SqlPassword") || value.eq_ignore_ascii_case("Sql Password") {
                    SignIn::Sql
                } else {
                    SignIn::Aad
                };
            }
            "trustservercertificate" => {
                if !matches!(value.to_ascii_lowercase().as_str(), "no" | "false") {
                    return Err(Error::unsupported("connection: any certificate at all is not trusted").hint(
                        "leave TrustServerCertificate out: if the certificate is not trusted, the error shows its fingerprint, and what to \
                         set once you know it to be the server's",
                    ));
                }
            }
            // Of no consequence here: connections are pooled and never shared by two statements at once.
            "persistsecurityinfo"
            | "multipleactiveresultsets"
            | "pooling"
            | "maxpoolsize"
            | "minpoolsize"
            | "multisubnetfailover"
            | "connectretrycount"
            | "connectretryinterval" => {}
            other => {
                return Err(wrong(format!("'{other}' is not known")).hint(
                    "known are Server, Database, User Id, Password, Encrypt, trust, pin, Server Certificate, Application Name, Packet Size, Connect \
                     Timeout, Authentication, Integrated Security, and those of pooling, which have no effect",
                ));
            }
        }
    }
    Ok(at)
}

fn pairs(text: &str) -> Result<Vec<(&str, Cow<'_, str>)>> {
    let mut found = vec![];
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches([';', ' ', '\n', '\t', '\r']);
        if rest.is_empty() {
            return Ok(found);
        }
        let (key, after) = rest.split_once('=').ok_or_else(|| wrong("a part of it has no '='"))?;
        let after = after.trim_start();
        let value = match after.chars().next() {
            Some(quote @ ('"' | '\'')) => {
                let mut end = 1;
                loop {
                    end += after[end..].find(quote).ok_or_else(|| wrong("a quote is not closed"))? + 1;
                    if !after[end..].starts_with(quote) {
                        break;
                    }
                    end += 1;
                }
                rest = after[end..].trim_start();
                if !(rest.is_empty() || rest.starts_with(';')) {
                    return Err(wrong("there is something behind a closing quote"));
                }
                Cow::Owned(after[1..end - 1].replace(&format!("{quote}{quote}"), &quote.to_string()))
            }
            _ => {
                let (value, behind) = after.split_once(';').unwrap_or((after, ""));
                rest = behind;
                Cow::Borrowed(value.trim_end())
            }
        };
        found.push((key.trim(), value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        match Login::parse(&Secret::new(text.to_owned())) {
            Err(error) => {
                assert!(!format!("{error} {error:?}").contains("s3cret"), "{error}");
                if error.to_string().contains("is not known") {
                    assert!(error.what_to_do().is_some_and(|hint| hint.starts_with("known are")), "{error}");
                }
                error.to_string()
            }
            Ok(login) => {
                assert!(!format!("{login:?}").contains("s3cret"));
                let at = &login.at;
                format!(
                    "{} {} {} {:?} {:?} {:?} {} {}",
                    login.place(),
                    login.user,
                    login.password.expose(),
                    at.encrypt,
                    at.trust.as_ref().map(|path| path.display().to_string()),
                    at.pin.as_ref().map(ToString::to_string),
                    at.application_name,
                    at.packet_size
                )
            }
        }
    }

    #[test]
    fn a_connection_is_read_and_never_shows_its_password() {
        let cases = [
            (
                "mssql://sa:s3cret@db.example:1444/shop",
                "mssql://db.example:1444/shop sa s3cret On None None towpath 16384",
            ),
            (
                "mssql://sa:s3cret%2F%40x@db/shop?encrypt=off&application_name=loader&packet_size=4096",
                "mssql://db:1433/shop sa s3cret/@x Off None None loader 4096",
            ),
            (
                "mssql://sa:s3cret@db?encrypt=strict&trust=/etc/ca.pem",
                "mssql://db:1433 sa s3cret Strict Some(\"/etc/ca.pem\") None towpath 16384",
            ),
            (
                "Server=tcp:db.example,1444;Initial Catalog=shop;User ID=sa;Password='s3cret;''x';Encrypt=True;",
                "mssql://db.example:1444/shop sa s3cret;'x On None None towpath 16384",
            ),
            (
                "Server=db;Uid=sa;Pwd=s3cret;Pin=sha256:000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
                "mssql://db:1433 sa s3cret On None Some(\"sha256:000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f\") towpath 16384",
            ),
            (
                "Server=db;Uid=sa;Pwd=s3cret;Trust=ca.pem",
                "mssql://db:1433 sa s3cret On Some(\"ca.pem\") None towpath 16384",
            ),
            ("server=db;uid=sa;pwd=s3cret;app=x y", "mssql://db:1433 sa s3cret On None None x y 16384"),
            ("${MSSQL_URL}", "mssql://${MSSQL_URL} ${MSSQL_URL} ${MSSQL_URL} On None None towpath 16384"),
            ("postgres://sa:s3cret@db/shop", "connection: its scheme is not mssql"),
            ("mssql://sa:s3cret@db/shop?tls=on", "connection: 'tls' is not known"),
            ("mssql://sa@db/shop", "connection: needs a user and a password"),
            ("mssql://sa:s3cret@db?encrypt=off&trust=x", "connection: encrypt=off leaves nothing to trust or pin"),
            ("mssql://sa:s3cret%zz@db", "connection: has a % that is none of a percent-encoding"),
            ("s3cret", "connection: a part of it has no '='"),
            ("Server=db;Password=s3cret;User Id=sa;Frobnicate=1", "connection: 'frobnicate' is not known"),
            (
                "Server=db;Integrated Security=SSPI",
                "connection: signing in with the account of the process (integrated) is not offered yet",
            ),
            (
                "Server=db;Uid=sa;Pwd=s3cret;TrustServerCertificate=true",
                "connection: any certificate at all is not trusted",
            ),
            ("Server=db\\SQLEXPRESS;Uid=sa;Pwd=s3cret", "connection: a named instance is not looked up"),
        ];
        for (text, expect) in cases {
            assert_eq!(shown(text), expect, "{text}");
        }
    }
}
