//! Rows in columns, for people.

/// The widest a column may be; what is longer is cut.
const WIDEST: usize = 40;

/// Lays out rows under headings; columns named in `right` (by index) are aligned to the right.
pub(crate) fn layout(headings: &[String], rows: &[Vec<String>], right: &[usize]) -> String {
    let cut = |text: &str| -> String {
        let flat: String = text.chars().map(|c| if c.is_control() { '·' } else { c }).collect();
        if flat.chars().count() > WIDEST { flat.chars().take(WIDEST - 1).chain(['…']).collect() } else { flat }
    };
    let rows: Vec<Vec<String>> = [headings]
        .into_iter()
        .chain(rows.iter().map(Vec::as_slice))
        .map(|row| row.iter().map(|text| cut(text)).collect())
        .collect();
    let widths: Vec<usize> = (0..headings.len())
        .map(|column| rows.iter().filter_map(|row| row.get(column)).map(|text| text.chars().count()).max().unwrap_or(0))
        .collect();
    let mut text = String::new();
    for row in &rows {
        let mut line = String::new();
        for (column, (value, width)) in row.iter().zip(&widths).enumerate() {
            let gap = " ".repeat(width - value.chars().count());
            let cell = if right.contains(&column) { format!("{gap}{value}") } else { format!("{value}{gap}") };
            if column > 0 {
                line.push_str("  ");
            }
            line.push_str(&cell);
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// `1234567` → `1,234,567`.
pub(crate) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let first = digits.len() % 3;
    let mut text = digits[..first].to_owned();
    for group in digits.as_bytes()[first..].chunks(3) {
        if !text.is_empty() {
            text.push(',');
        }
        text.extend(group.iter().map(|digit| char::from(*digit)));
    }
    text
}

/// `107.3 MB`.
pub(crate) fn megabytes(bytes: u64) -> String {
    match bytes {
        0..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.2} GB", bytes as f64 / 1e9),
    }
}

/// `0:07`, `12:30`, `1:02:03`.
pub(crate) fn clock(seconds: u64) -> String {
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if hours > 0 { format!("{hours}:{minutes:02}:{seconds:02}") } else { format!("{minutes}:{seconds:02}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_readable() {
        for (number, text) in
            [(0, "0"), (7, "7"), (999, "999"), (1000, "1,000"), (12_345, "12,345"), (1_234_567, "1,234,567")]
        {
            assert_eq!(thousands(number), text);
        }
        for (bytes, text) in [(0, "0.0 kB"), (1_500, "1.5 kB"), (107_300_000, "107.3 MB"), (2_340_000_000, "2.34 GB")] {
            assert_eq!(megabytes(bytes), text);
        }
        for (seconds, text) in [(0, "0:00"), (67, "1:07"), (3723, "1:02:03")] {
            assert_eq!(clock(seconds), text);
        }
    }

    #[test]
    fn a_table_is_aligned_and_bounded() {
        let rows = vec![vec!["1".to_owned(), "a\nb".to_owned()], vec!["200".to_owned(), "x".repeat(50)]];
        let text = layout(&["id".to_owned(), "text".to_owned()], &rows, &[0]);
        assert_eq!(text, format!(" id  text\n  1  a·b\n200  {}…\n", "x".repeat(39)));
    }
}
