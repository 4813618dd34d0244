//! Tokens of T-SQL.

use super::error::{Sql, SqlError};

/// A token.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Tok {
    /// A word that is not quoted: a keyword or a name.
    Word(String),
    /// `[a]]b]` or `"ab"`.
    Quoted(String),
    /// `'…'`; `true`: `N'…'`.
    Text(String, bool),
    /// A number as it is written.
    Number(String),
    /// `0x…`.
    Hex(Vec<u8>),
    /// `@x` or `@@x`, with the signs, lowercase.
    Variable(String),
    Op(&'static str),
    End,
}

/// A token and where it stands.
#[derive(Clone, Debug)]
pub(super) struct Spanned {
    pub tok: Tok,
    pub start: usize,
    pub end: usize,
    pub line: u32,
}

const OPERATORS: [&str; 31] = [
    "<>", "<=", ">=", "!=", "!<", "!>", "+=", "-=", "*=", "/=", "||", "::", "=", "<", ">", "+", "-", "*", "/", "%",
    "(", ")", ",", ".", ";", "&", "|", "^", "~", ":", "$",
];

/// Cuts a batch into tokens; the last is [`Tok::End`].
pub(super) fn lex(text: &str) -> Sql<Vec<Spanned>> {
    let bytes = text.as_bytes();
    let (mut at, mut line) = (0, 1_u32);
    let mut out = vec![];
    while at < bytes.len() {
        let start = at;
        let rest = &text[at..];
        let byte = bytes[at];
        let tok = match byte {
            b'\n' => {
                line += 1;
                at += 1;
                continue;
            }
            _ if rest.starts_with(char::is_whitespace) || rest.starts_with('\u{feff}') => {
                at += rest.chars().next().map_or(1, char::len_utf8);
                continue;
            }
            b'-' if rest.starts_with("--") => {
                at += rest.find('\n').unwrap_or(rest.len());
                continue;
            }
            b'/' if rest.starts_with("/*") => {
                at = comment(text, at)?;
                line += newlines(&text[start..at]);
                continue;
            }
            b'\'' => {
                let (value, end) = quoted(text, at + 1, b'\'')?;
                at = end;
                Tok::Text(value, false)
            }
            b'N' | b'n' if bytes.get(at + 1) == Some(&b'\'') => {
                let (value, end) = quoted(text, at + 2, b'\'')?;
                at = end;
                Tok::Text(value, true)
            }
            b'[' | b'"' => {
                let (value, end) = quoted(text, at + 1, if byte == b'[' { b']' } else { b'"' })?;
                at = end;
                Tok::Quoted(value)
            }
            b'0' if rest.len() > 1 && rest.as_bytes()[1].eq_ignore_ascii_case(&b'x') => {
                let digits: String = rest[2..].chars().take_while(char::is_ascii_hexdigit).collect();
                at += 2 + digits.len();
                let padded = if digits.len() % 2 == 1 { format!("0{digits}") } else { digits };
                let byte = |index: usize| u8::from_str_radix(&padded[index..index + 2], 16).unwrap_or(0);
                Tok::Hex((0..padded.len()).step_by(2).map(byte).collect())
            }
            b'0'..=b'9' => {
                at += number(rest);
                Tok::Number(text[start..at].to_owned())
            }
            b'.' if rest.as_bytes().get(1).is_some_and(u8::is_ascii_digit) => {
                at += number(rest);
                Tok::Number(text[start..at].to_owned())
            }
            b'@' => {
                at += rest.find(|c: char| !is_word(c)).unwrap_or(rest.len());
                Tok::Variable(text[start..at].to_lowercase())
            }
            _ if byte != b'$' && rest.starts_with(is_word) => {
                at += rest.find(|c: char| !is_word(c)).unwrap_or(rest.len());
                Tok::Word(text[start..at].to_owned())
            }
            _ => match OPERATORS.iter().find(|op| rest.starts_with(**op)) {
                Some(op) => {
                    at += op.len();
                    Tok::Op(op)
                }
                None => return Err(SqlError::syntax(&rest.chars().take(1).collect::<String>())),
            },
        };
        let here = line;
        line += newlines(&text[start..at]);
        out.push(Spanned { tok, start, end: at, line: here });
    }
    out.push(Spanned { tok: Tok::End, start: text.len(), end: text.len(), line });
    Ok(out)
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '@' | '#' | '$')
}

fn newlines(text: &str) -> u32 {
    u32::try_from(text.bytes().filter(|byte| *byte == b'\n').count()).unwrap_or(0)
}

fn number(rest: &str) -> usize {
    let bytes = rest.as_bytes();
    let digits = |mut at: usize| {
        while bytes.get(at).is_some_and(u8::is_ascii_digit) {
            at += 1;
        }
        at
    };
    let mut at = digits(0);
    if bytes.get(at) == Some(&b'.') {
        at = digits(at + 1);
    }
    if bytes.get(at).is_some_and(|byte| byte.eq_ignore_ascii_case(&b'e')) {
        let sign = usize::from(matches!(bytes.get(at + 1), Some(b'+' | b'-')));
        let end = digits(at + 1 + sign);
        if end > at + 1 + sign {
            at = end;
        }
    }
    at
}

/// Where a comment ends; they nest.
fn comment(text: &str, start: usize) -> Sql<usize> {
    let (mut at, mut depth) = (start, 0);
    let bytes = text.as_bytes();
    while at < bytes.len() {
        match (bytes[at], bytes.get(at + 1)) {
            (b'/', Some(b'*')) => {
                depth += 1;
                at += 2;
            }
            (b'*', Some(b'/')) => {
                depth -= 1;
                at += 2;
                if depth == 0 {
                    return Ok(at);
                }
            }
            _ => at += 1,
        }
    }
    Err(SqlError::new(113, 15, "Missing end comment mark '*/'."))
}

/// What stands up to the closing quote, which is doubled inside, and where it ends.
fn quoted(text: &str, start: usize, close: u8) -> Sql<(String, usize)> {
    let bytes = text.as_bytes();
    let (mut at, mut value, mut from) = (start, String::new(), start);
    while let Some(byte) = bytes.get(at) {
        if *byte == close {
            value.push_str(&text[from..at]);
            if bytes.get(at + 1) != Some(&close) {
                return Ok((value, at + 1));
            }
            value.push(char::from(close));
            at += 1;
            from = at + 1;
        }
        at += 1;
    }
    Err(SqlError::new(105, 15, "Unclosed quotation mark after the character string."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens() {
        let toks = |text: &str| lex(text).map(|all| all.into_iter().map(|token| token.tok).collect::<Vec<_>>());
        let word = |text: &str| Tok::Word(text.to_owned());
        assert_eq!(
            toks("a [b]]c] N'd''e' 1.5e-3 0xAb @X <> --f\n/* /* */ */#t").unwrap(),
            [
                word("a"),
                Tok::Quoted("b]c".to_owned()),
                Tok::Text("d'e".to_owned(), true),
                Tok::Number("1.5e-3".to_owned()),
                Tok::Hex(vec![0xab]),
                Tok::Variable("@x".to_owned()),
                Tok::Op("<>"),
                word("#t"),
                Tok::End
            ]
        );
        for (text, number) in [("'a", 105), ("/* a", 113), ("a ? b", 102)] {
            assert_eq!(toks(text).unwrap_err().number, number, "{text}");
        }
    }
}
