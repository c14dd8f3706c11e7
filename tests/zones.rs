//! Every zone that a configuration may name, every day of four years: the windows are those of PostgreSQL's
//! `AT TIME ZONE`, and so are the wall clocks by which columns without a zone are read.
//!
//! The server has time zone data of its own, of another release perhaps, and perhaps without the old names. With the
//! same release any difference fails. With another one, or one that the server does not tell, a difference is nobody's
//! fault if the data differ at that place, but it must be one that export refuses: that is tried for each zone. Names
//! that the server does not know are told. How much may differ or be unknown is capped, so that this cannot become a
//! test of nothing.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use chrono_tz::{IANA_TZDB_VERSION, TZ_VARIANTS};
use pgslice::day::{Day, DayRange, Zone, midnight};

use crate::cluster::{self, Cluster, Database};
use crate::in_process::day;
use crate::published::Published;
use crate::scene::Scene;
use crate::shifted_clock::ShiftedClock;

/// Names that a server may not know: Debian 13 has the old ones in a package of their own.
const MOST_UNKNOWN: usize = 250;
/// Zones whose rules for these years may have changed between two releases.
const MOST_CHANGED: usize = 40;

fn days() -> Vec<Day> {
    DayRange { from: day("2024-01-01"), to: day("2027-12-31") }.days().collect()
}

fn accepted() -> Vec<Zone> {
    TZ_VARIANTS.iter().filter_map(|zone| zone.name().parse().ok()).collect()
}

/// What the server says about a zone, in seconds since 1970.
struct Told {
    /// The instants at which each of [`days`] and the one after them starts.
    starts: Vec<i64>,
    /// What wall clocks show when each of them starts in UTC, read as if it were UTC.
    wall_clocks: Vec<i64>,
}

/// By name; without the names that the server does not know.
fn told(database: &Database, zones: &[Zone]) -> BTreeMap<String, Told> {
    let names: Vec<&str> = zones.iter().map(|zone| zone.name()).collect();
    let days = days();
    let (first, after) = (days[0], days[days.len() - 1].next());
    let lists = |text: &str| text.split(',').map(|number| number.parse().expect("a number")).collect();
    let printed = database.psql(&format!(
        "SELECT n.name,
             string_agg(extract(epoch FROM d AT TIME ZONE n.name)::bigint::text, ',' ORDER BY d),
             string_agg(extract(epoch FROM d AT TIME ZONE 'UTC' AT TIME ZONE n.name)::bigint::text, ',' ORDER BY d)
         FROM pg_timezone_names n, generate_series(timestamp '{first}', '{after}', '1 day') d
         WHERE n.name = ANY ('{{{}}}') GROUP BY 1",
        names.join(",")
    ));
    let line = |line: &str| {
        let fields: Vec<&str> = line.split('|').collect();
        (fields[0].to_owned(), Told { starts: lists(fields[1]), wall_clocks: lists(fields[2]) })
    };
    printed.lines().map(line).collect()
}

/// The first day whose window differs, and the first in UTC whose start differs on wall clocks.
fn differences(zone: Zone, told: &Told) -> [Option<Day>; 2] {
    let days = days();
    assert_eq!((told.starts.len(), told.wall_clocks.len()), (days.len() + 1, days.len() + 1), "{}", zone.name());
    let window = |index: usize| {
        let window = zone.window(days[index]);
        (window.start.timestamp(), window.end.timestamp()) != (told.starts[index], told.starts[index + 1])
    };
    let wall_clock =
        |index: usize| zone.local(midnight(days[index]).and_utc()).and_utc().timestamp() != told.wall_clocks[index];
    [(0..days.len()).find(|index| window(*index)), (0..days.len()).find(|index| wall_clock(*index))]
        .map(|index| index.map(|index| days[index]))
}

/// Do the data differ that the window was made from? Wall clocks at given instants follow from them alone; if those are
/// the same on both sides of each end of the window, here and there, then one side read the same data wrongly.
fn is_of_the_data(database: &Database, zone: Zone, day: Day, told: &Told) -> bool {
    let index = days().iter().position(|other| *other == day).expect("one of them");
    let window = zone.window(day);
    let ends = [window.start.timestamp(), window.end.timestamp(), told.starts[index], told.starts[index + 1]];
    ends.iter().flat_map(|end| [end - 1, *end]).any(|instant| {
        let sql = format!("SELECT extract(epoch FROM to_timestamp({instant}) AT TIME ZONE '{}')::bigint", zone.name());
        let instant = DateTime::from_timestamp(instant, 0).expect("of these years");
        zone.local(instant).and_utc().timestamp().to_string() != database.psql(&sql)
    })
}

/// The release of the server's time zone data, if it takes them from a system that tells.
fn release(database: &Database) -> Option<String> {
    let release = database.psql(
        "SELECT substring(pg_read_file(folder || '/tzdata.zi', 0, 100, true) FROM '^# version (\\S+)')
         FROM (SELECT substring(setting FROM '--with-system-tzdata=([^'' ]+)') AS folder
               FROM pg_config WHERE name = 'CONFIGURE') s",
    );
    Some(release).filter(|release| !release.is_empty())
}

/// Tries both to publish a day whose window differs, and one at whose ends wall clocks differ, which must be refused.
#[track_caller]
fn assert_refused(database: &Database, clock: ShiftedClock, zone: Zone, [window, wall_clock]: [Option<Day>; 2]) {
    let name = zone.name();
    let instants = "[[table]]\nname = \"instants\"\ntime-column = \"at\"\n".to_owned();
    let walls = format!("[[table]]\nname = \"walls\"\ntime-column = \"at\"\ncolumn-timezone = \"{name}\"\n");
    for (day, timezone, tables) in [(window, name, instants), (wall_clock, "UTC", walls)] {
        let Some(day) = day else { continue };
        let scene = Scene::in_folder(&tables).source(database).timezone(timezone).under(clock);
        let ran = scene.pgslice(&["export", "--date", &day.to_string()]).exits(4);
        assert!(ran.stderr.contains(&format!("time zone data for {name} differ on {day}")), "{ran}");
        assert!(Published::by(&scene).objects().is_empty());
    }
}

#[test]
#[expect(clippy::print_stdout, reason = "what could not be compared belongs to the result")]
fn windows_are_those_of_at_time_zone_in_every_zone_on_every_day_of_four_years() {
    let database = cluster::source().create_database("zones");
    let zones = accepted();
    assert!(zones.len() > 500, "only {} zones are accepted", zones.len());
    let told = told(&database, &zones);
    let (known, unknown): (Vec<Zone>, Vec<Zone>) = zones.iter().partition(|zone| told.contains_key(zone.name()));
    let differing: Vec<(Zone, [Option<Day>; 2])> = known
        .iter()
        .map(|zone| (*zone, differences(*zone, &told[zone.name()])))
        .filter(|(_, days)| days.iter().any(Option::is_some))
        .collect();

    let (ours, theirs) = (IANA_TZDB_VERSION, release(&database));
    let names = |zones: &[Zone]| zones.iter().map(|zone| zone.name()).collect::<Vec<_>>().join(" ");
    let first = |(zone, days): &(Zone, [Option<Day>; 2])| {
        let day = days.iter().flatten().min();
        format!("{} on {}", zone.name(), day.expect("one of them differs"))
    };
    let changes = differing.iter().map(first).collect::<Vec<_>>().join(", ");
    println!(
        "{} zones × {} days compared; time zone data of pgslice {ours}, of the server {}; {} zones that the server \
         does not know: {}; {} that differ, first: {changes}",
        known.len(),
        days().len(),
        theirs.as_deref().unwrap_or("its own, of a release that it does not tell"),
        unknown.len(),
        names(&unknown),
        differing.len(),
    );
    assert!(unknown.len() <= MOST_UNKNOWN, "too many to call it a comparison: {}", names(&unknown));
    assert!(differing.len() <= MOST_CHANGED, "more than releases differ by: {changes}");
    assert!(differing.is_empty() || theirs.as_deref() != Some(ours), "both are of release {ours}: {changes}");
    if differing.is_empty() {
        return;
    }
    for (zone, [window, _]) in &differing {
        let of_the_data = |day| is_of_the_data(&database, *zone, day, &told[zone.name()]);
        assert!(window.is_none_or(of_the_data), "not for its data: {} on {window:?}", zone.name());
    }
    // Days are only exported when they have ended.
    let clock = ShiftedClock::showing("2028-01-03T00:00:00Z".parse::<DateTime<Utc>>().expect("a time"));
    let later = Cluster::start_under(clock).create_database("zones");
    later.psql("CREATE TABLE instants (at timestamptz NOT NULL); CREATE TABLE walls (at timestamp NOT NULL)");
    for (zone, days) in differing {
        assert_refused(&later, clock, zone, days);
    }
}

#[test]
fn the_names_that_at_time_zone_takes_for_abbreviations_are_refused_and_no_others() {
    let refused: Vec<&str> =
        TZ_VARIANTS.iter().map(|zone| zone.name()).filter(|name| name.parse::<Zone>().is_err()).collect();
    assert_eq!(refused, ["CET", "EET", "MET", "WET"]);
    let database = cluster::source().create_database("abbreviations");
    for name in refused {
        // As the name of a zone, which it is to `SET`, it has summer time.
        let same = "SELECT timestamptz '2024-07-01' = timestamp '2024-07-01' AT TIME ZONE";
        assert_eq!(database.psql(&format!("SET TimeZone = '{name}'; {same} '{name}'")), "f", "{name}");
    }
}

#[test]
fn an_abbreviation_that_a_source_reads_in_its_own_way_is_refused_when_a_day_is_cut() {
    let database = cluster::source().create_database("australian");
    database.psql(&format!(
        "CREATE TABLE event (at timestamptz NOT NULL);
         ALTER DATABASE \"{}\" SET timezone_abbreviations = 'Australia'",
        database.name
    ));
    let scene = Scene::new("[[table]]\nname = \"event\"\ntime-column = \"at\"\n").source(&database).timezone("EST");
    let ran = scene.pgslice(&["export", "--date", "2024-05-01"]).exits(4);
    assert!(ran.stderr.contains("time zone data for EST differ on 2024-05-01"), "{ran}");
    assert!(Published::by(&scene).objects().is_empty());
}
