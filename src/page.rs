//! `index.html`: the head of a feed as a page for people. Generated after every change, read by no program.

use std::fmt::Write;

use crate::feed::{DayEntry, Feed, FullDump};
use crate::figures::{counted, human_bytes, human_count, human_days, human_instant};
use crate::layout::{FEED, sums_beside};

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}\
    table{border-collapse:collapse;width:100%}th,td{text-align:left;padding:.2rem .8rem .2rem 0;\
    border-bottom:1px solid #ccc}.n{text-align:right}code,pre{font-family:ui-monospace,monospace}\
    pre{background:#f4f4f4;color:#222;padding:.8rem;overflow-x:auto}";

/// The page of `feed`: one document without scripts or anything loaded from elsewhere, with links relative to its
/// own folder. The newest day comes first. It is as fresh as the feed: it says when that was published and until
/// when it holds, and cannot know the time it is read at.
pub fn index_html(feed: &Feed) -> String {
    let dataset = escape(&feed.dataset);
    let mut days = String::new();
    for entry in feed.days.iter().rev() {
        push_row(&mut days, entry);
    }
    let missing = match feed.missing() {
        missing if missing.is_empty() => String::new(),
        missing => format!("<p><strong>Missing: {}.</strong></p>\n", human_days(&missing)),
    };
    let dumps = full_dumps(feed);
    format!(
        "<!DOCTYPE html>\n\
        <html lang=\"en\">\n\
        <head>\n\
        <meta charset=\"utf-8\">\n\
        <meta name=\"viewport\" content=\"width=device-width\">\n\
        <title>{dataset}: days of a PostgreSQL database</title>\n\
        <style>{STYLE}</style>\n\
        </head>\n\
        <body>\n\
        <h1>{dataset}</h1>\n\
        <p>{}, published {}. Stale after {}. Days are those of the zone {}.</p>\n\
        {missing}\
        <h2>Catching up</h2>\n\
        <p>Put the address of this folder into <code>pgslice.toml</code> as <code>url</code> of <code>[store]</code>, \
        your database as that of <code>[replica]</code>, and the tables you accept; or load a part by hand, in the way \
        of its name's end, its columns in the order of the day's manifest:</p>\n\
        <pre>pgslice catchup\n\
        zstd -dc PART.copy.zst | psql -c '\\copy TABLE (COLUMNS) from stdin'\n\
        zstd -dc PART.csv.zst | psql -c '\\copy TABLE (COLUMNS) from stdin with (format csv, header)'\n\
        zstd -dc PART.bin.zst | psql -c '\\copy TABLE (COLUMNS) from stdin with (format binary)'</pre>\n\
        <h2>Days</h2>\n\
        <table>\n\
        <thead><tr><th>day</th><th>revision</th><th>state</th><th class=\"n\">rows</th><th class=\"n\">size</th>\
        <th>files</th></tr></thead>\n\
        <tbody>\n{days}</tbody>\n\
        </table>\n\
        {dumps}\
        <p>For programs: <a href=\"{FEED}\">{FEED}</a></p>\n\
        </body>\n\
        </html>\n",
        counted(feed.days.len(), "day"),
        human_instant(feed.published_at),
        human_instant(feed.valid_until),
        escape(&feed.timezone),
    )
}

/// The full dumps, the newest first; nothing without any.
fn full_dumps(feed: &Feed) -> String {
    let mut dumps: Vec<&FullDump> = feed.full_dumps.iter().collect();
    if dumps.is_empty() {
        return String::new();
    }
    dumps.sort_by_key(|dump| std::cmp::Reverse(dump.moment.taken_at));
    let mut html = "<h2>Full dumps</h2>\n<table>\n<thead><tr><th>file</th><th>taken</th><th>contains days up to</th>\
        <th class=\"n\">size</th></tr></thead>\n<tbody>\n"
        .to_owned();
    for dump in dumps {
        let through = feed.contained_through(&dump.moment).map_or_else(|| "none".to_owned(), |day| day.to_string());
        // Writing to a string cannot fail; keys need no escaping.
        let _ = writeln!(
            html,
            "<tr><td><a href=\"{key}\">{key}</a></td><td>{}</td><td>{through}</td><td class=\"n\">{}</td></tr>",
            human_instant(dump.moment.taken_at),
            human_bytes(dump.bytes),
            key = dump.key,
        );
    }
    html.push_str("</tbody>\n</table>\n<p>After a restore: <code>pgslice catchup --restored-from FILE</code></p>\n");
    html
}

fn push_row(html: &mut String, entry: &DayEntry) {
    // Writing to a string cannot fail. Keys need no escaping: their grammar has nothing that HTML or a URL minds.
    let _ = writeln!(
        html,
        "<tr><td>{}</td><td>r{}</td><td>{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td>\
        <td><a href=\"{}\">manifest</a> <a href=\"{}\">SHA256SUMS</a></td></tr>",
        entry.day,
        entry.revision,
        entry.state.word(),
        human_count(entry.rows),
        human_bytes(entry.bytes),
        entry.manifest.key,
        sums_beside(&entry.manifest.key),
    );
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::State::{Final, Provisional};
    use crate::retention::fixtures::{feed_of, full_dump};

    fn page() -> String {
        index_html(&feed_of(&[("2024-05-01", Final), ("2024-05-03", Provisional)]))
    }

    #[test]
    fn a_day_shows_its_figures_and_links_to_its_documents() {
        let row = "<tr><td>2024-05-01</td><td>r1</td><td>final</td><td class=\"n\">30</td><td class=\"n\">120 B</td>\
            <td><a href=\"2024-05-01/r1-00000001/manifest.json\">manifest</a> \
            <a href=\"2024-05-01/r1-00000001/SHA256SUMS\">SHA256SUMS</a></td></tr>\n";
        assert!(page().contains(row), "{}", page());
    }

    #[test]
    fn freshness_gaps_and_the_way_to_catch_up_are_there() {
        let page = page();
        assert!(page.contains("2 days, published 2024-05-04 00:00 UTC. Stale after 2024-05-05 12:00 UTC."), "{page}");
        assert!(page.contains("Missing: 2024-05-02."));
        assert!(page.contains("<pre>pgslice catchup\nzstd -dc "));
        assert!(!index_html(&feed_of(&[])).contains("Missing"));
    }

    #[test]
    fn parts_of_every_format_have_a_line_that_loads_them() {
        let page = page();
        for (suffix, options) in [("copy", ""), ("csv", " with (format csv, header)"), ("bin", " with (format binary)")]
        {
            let line = format!("zstd -dc PART.{suffix}.zst | psql -c '\\copy TABLE (COLUMNS) from stdin{options}'");
            assert!(page.lines().any(|shown| shown.trim_end_matches("</pre>") == line), "{line}\n{page}");
        }
    }

    #[test]
    fn the_newest_day_comes_first() {
        let page = page();
        assert!(page.find("<td>2024-05-03</td>") < page.find("<td>2024-05-01</td>"));
    }

    #[test]
    fn full_dumps_are_listed_with_what_they_contain() {
        assert!(!page().contains("Full dumps"));
        let mut feed = feed_of(&[("2024-05-01", Final), ("2024-05-03", Provisional)]);
        feed.full_dumps.push(full_dump("full/a.dump", "2024-05-02T00:20:00Z"));
        let row = "<tr><td><a href=\"full/a.dump\">full/a.dump</a></td><td>2024-05-02 00:20 UTC</td>\
            <td>2024-05-01</td><td class=\"n\">1.0 kB</td></tr>\n";
        assert!(index_html(&feed).contains(row), "{}", index_html(&feed));
    }

    #[test]
    fn names_from_the_feed_are_text_not_markup() {
        let mut feed = feed_of(&[]);
        feed.dataset = "<script>alert('&\"')</script>".into();
        feed.timezone = "<b>".into();
        let page = index_html(&feed);
        assert!(!page.contains("<script") && !page.contains("<b>"));
        assert!(page.contains("<h1>&lt;script&gt;alert(&#39;&amp;&quot;&#39;)&lt;/script&gt;</h1>"), "{page}");
    }

    #[test]
    fn nothing_is_loaded_from_elsewhere() {
        let page = page();
        assert!(!page.contains("http") && !page.contains("src=") && !page.contains("<link"));
    }
}
