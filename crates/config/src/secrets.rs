//! What must not show, and how it is kept from showing: in lines of files, in messages, in paths.
//!
//! Of a file that could be read it is known where each secret stands; of one that could not, the words around a line must do, and
//! rather too much is masked than too little.

use crate::{
    layers::Layer,
    tree::{At, Node},
};

/// What must not show.
#[derive(Debug, Default)]
pub(crate) struct Secrets {
    /// Stretches of layers' texts.
    pub spans: Vec<At>,
    /// Values, to be cut out of messages that come from elsewhere.
    pub values: Vec<String>,
    /// Keys whose values are secret, in whatever layer.
    pub paths: Vec<String>,
}

impl Secrets {
    /// Marks every scalar of `node`, which stands at `path`, that is secret by a known path or by the name of its key.
    pub fn mark(&mut self, path: &str, node: &mut Node) {
        node.walk_mut(path, &mut |path, node| {
            // Without its colon or the space behind it, `password: x` is all key.
            for (key, _) in node.entries() {
                if let Some((word, value)) = key.name.split_once([' ', ':'])
                    && sounds_secret(word)
                    && !value.trim().is_empty()
                {
                    self.keep(At { start: key.at.end.saturating_sub(value.len()), ..key.at }, value.trim());
                }
            }
            let Some(raw) = node.raw.as_ref().filter(|raw| !raw.text.is_empty()) else { return };
            let below = |secret: &String| {
                path.strip_prefix(secret.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
            };
            if sounds_secret(path) || self.paths.iter().any(below) {
                self.keep(node.at, &raw.text);
            }
        });
    }
    /// A stretch and what stands there.
    pub fn keep(&mut self, at: At, value: &str) {
        self.spans.push(at);
        // Shorter ones would cut common words to pieces.
        if value.len() > 3 {
            self.values.push(value.to_owned());
        }
    }
    /// Cuts the values out of a text that comes from elsewhere.
    pub fn mask(&self, text: &str) -> String {
        // The longest first, or a part of one would be left over.
        let mut values: Vec<&String> = self.values.iter().filter(|value| value.len() > 2).collect();
        values.sort_by_key(|value| std::cmp::Reverse(value.len()));
        let masked = values.iter().fold(text.to_owned(), |text, value| text.replace(value.as_str(), "***"));
        mask_user(&masked, false)
    }
}

/// `https://me:secret@host` → `https://***@host`. Generous, because a URL with a slip in it is shown too: everything from the first
/// slashes to the last `@` of a line goes, or else the word before the `@` if it looks like name and password.
fn mask_user(text: &str, any: bool) -> String {
    let mask = |line: &str| -> String {
        let Some(at) = line.rfind('@') else { return line.to_owned() };
        let before = &line[..at];
        let word = || before.rfind(|c: char| c.is_whitespace() || matches!(c, '"' | '\'')).map_or(0, |space| space + 1);
        let start = match (before.find("//"), before.find('/')) {
            (Some(slashes), _) => Some(slashes + 2),
            (None, Some(slash)) => Some(slash + 1),
            (None, None) => Some(word()).filter(|start| any || before[*start..].contains(':')),
        };
        let Some(start) = start.filter(|start| before[*start..].chars().any(char::is_alphanumeric)) else {
            return line.to_owned();
        };
        let user = &before[start..];
        // A name alone is no secret, and neither is a variable.
        if !any && (!user.contains(':') || only_a_variable(user)) {
            return line.to_owned();
        }
        format!("{}***{}", &line[..start], &line[at..])
    };
    text.split_inclusive('\n').map(mask).collect()
}

const SECRET_WORDS: [&str; 7] = ["password", "passwd", "secret", "token", "api_key", "apikey", "connection"];

/// Whether a key's name says that its value is a secret, for lines no schema was found for.
fn sounds_secret(key: &str) -> bool {
    let key = key.to_lowercase();
    SECRET_WORDS.iter().any(|word| key.contains(word))
}

/// A line of a layer without what must not show. `from` and `to` are its ends in the layer's text.
pub(crate) fn masked_line(layer: &Layer, (from, to): (usize, usize), index: usize, secrets: &Secrets) -> String {
    let mut line = layer.text[from..to].to_owned();
    let mut spans: Vec<(usize, usize)> = secrets
        .spans
        .iter()
        .filter(|span| span.layer == index && span.start < to && span.end > from)
        .map(|span| (span.start.max(from) - from, span.end.min(to) - from))
        .collect();
    spans.sort_unstable();
    spans.dedup();
    for (start, end) in spans.into_iter().rev() {
        if line.get(start..end).is_some_and(|value| !only_a_variable(value)) {
            line.replace_range(start..end, "***");
        }
    }
    // Of a text that cannot be read there are no spans; the words around the line must do.
    if goes_on_a_secret(&layer.text[..from], layer.broken) {
        let depth = line.len() - line.trim_start().len();
        line.replace_range(depth.., "***");
    } else if layer.broken {
        line = masked_by_words(&layer.text[..from], mask_user(&line, true));
    }
    mask_user(&line, false)
}

/// Whether the line below is the value of a secret that stands in a line of its own: `token: |`.
fn goes_on_a_secret(above: &str, broken: bool) -> bool {
    let Some(before) = above.lines().rev().find(|line| !line.trim().is_empty()) else { return false };
    let end = before.trim_end();
    let open = !end.ends_with(|c: char| c.is_alphanumeric() || matches!(c, '"' | '\'' | '}' | ']'));
    let block = end.ends_with(['|', '>']);
    if broken { block || (sounds_secret(before) && open) } else { block && sounds_secret(before) }
}

/// Masks whatever may be the value of a secret on a line of a text that could not be read.
fn masked_by_words(above: &str, mut line: String) -> String {
    let indent = |line: &str| line.len() - line.trim_start().len();
    let depth = indent(&line);
    // The lines it is part of: each less indented than the one below it.
    let mut least = depth;
    let mut open = 0;
    for outer in above.lines().rev().filter(|line| !line.trim().is_empty()).take(50) {
        let count = |signs: [char; 2]| outer.matches(signs).count() as isize;
        open += count(['{', '[']) - count(['}', ']']);
        if indent(outer) < least || open > 0 {
            if sounds_secret(outer) || outer.contains("auth") {
                line.replace_range(depth.., "***");
                return line;
            }
            least = least.min(indent(outer));
        }
    }
    // A word with a slip in it counts too.
    let letter = |c: char| c.is_alphanumeric() || c == '_';
    let mut words = line.split(|c| !letter(c)).map(|word| (word.as_ptr() as usize - line.as_ptr() as usize, word));
    let meant = |word: &str| sounds_secret(word) || crate::nearest::nearest(word, SECRET_WORDS).is_some();
    if let Some((at, word)) = words.find(|(_, word)| meant(word)) {
        let value = at + word.len();
        let rest = line.get(value..).unwrap_or_default();
        if rest.chars().any(char::is_alphanumeric) && !only_a_variable(rest) {
            line.truncate(value);
            line.push_str(": ***");
        }
    }
    line
}

/// `"${PASSWORD}" }`: nothing but a variable, and signs around it.
fn only_a_variable(text: &str) -> bool {
    let Some((before, rest)) = text.split_once("${") else { return false };
    let name = rest.trim_start_matches(|c: char| c.is_ascii_alphanumeric() || c == '_');
    let sign = |text: &str| text.chars().all(|c| !c.is_alphanumeric());
    sign(before) && sign(name)
}
