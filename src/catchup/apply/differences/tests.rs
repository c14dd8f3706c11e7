use super::*;

fn held(rows: &[(&str, &str)]) -> Held {
    let mut held = Held::with_room_for(rows.len());
    rows.iter().for_each(|(place, row)| held.add(format!("{place}\t{row}\n").as_bytes()));
    held
}

#[test]
fn what_the_slice_does_not_have_is_told_by_its_place() {
    let mut held = held(&[
        ("16385\t(0,1)", "1\tone"),
        ("16385\t(4294967294,291)", "2\ttwo"),
        ("16399\t(7,2)", ""),
        ("4294967295\t(65536,65534)", "3\t\\N"),
    ])
    .sorted()
    .expect("rows that can be told apart");
    assert!(held.matches(b"1\tone") && held.matches(b""));
    assert!(!held.matches(b"2\tTwo") && !held.matches(b"2\ttwo\n"));
    let mut unmatched: Vec<String> = held.unmatched().collect();
    unmatched.sort();
    assert_eq!(unmatched, ["16385\t(4294967294,291)\n", "4294967295\t(65536,65534)\n"]);
}

#[test]
fn a_row_stands_for_one_row_of_the_slice_only() {
    let mut held = held(&[("1\t(0,1)", "a")]).sorted().expect("one row");
    assert!(held.matches(b"a"));
    assert!(!held.matches(b"a"), "the second one is staged, and its key is refused as ever");
}

#[test]
fn windows_that_cannot_be_asked_are_staged_whole() {
    for rows in [
        &[][..],
        &[("1\t(0,1)", "a"), ("1\t(0,2)", "a")],
        &[("1\t\\N", "a")],
        &[("1\t(0,1)", "a"), ("\\N\t(0,2)", "b")],
        &[("1\t(0,1)", "a"), ("1\t(4294967296,2)", "b")],
        &[("1", "a")],
    ] {
        assert!(held(rows).sorted().is_none(), "{rows:?}");
    }
    let mut cut = Held::with_room_for(1);
    cut.add(b"1\t(0,1)\ta");
    assert!(cut.sorted().is_none());
}

#[test]
fn a_window_of_too_many_rows_lets_go_of_its_memory() {
    let mut held = Held::with_room_for(0);
    for number in 0..=MOST_ROWS {
        held.add(format!("1\t({number},1)\t{number}\n").as_bytes());
    }
    held.add(b"1\t(0,1)\tlast\n");
    assert_eq!((held.rows.capacity(), held.seen), (0, MOST_ROWS as u64 + 2));
    assert!(held.sorted().is_none());
}
