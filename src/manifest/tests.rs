use super::*;
use crate::retention::fixtures;
use proptest::prelude::*;

fn taken(snapshot: &str, minute: u32) -> Taken {
    Taken {
        exported_at: chrono::NaiveDate::from_ymd_opt(2024, 5, 2)
            .and_then(|date| date.and_hms_opt(0, minute, 0))
            .expect("a time")
            .and_utc(),
        snapshot: snapshot.into(),
        lsn: "0/1".into(),
        system_identifier: "7".into(),
        timeline: 1,
    }
}

mod order {
    use super::*;

    #[test]
    fn reads_are_ordered_by_their_snapshots_not_by_their_clocks() {
        assert!(taken("100:102:100", 9).order(&taken("102:102:", 1)).is_lt(), "a transaction ended in between");
        assert!(taken("100:102:100,101", 9).order(&taken("100:102:100", 1)).is_lt());
        assert!(taken("100:103:", 1).order(&taken("100:102:", 9)).is_gt());
        assert!(taken("100:102:", 1).order(&taken("100:102:", 2)).is_lt(), "equal snapshots: by time");
        assert!(taken("9:9:", 9).order(&taken("10:10:", 1)).is_lt(), "numbers, not texts");
    }

    fn at(snapshot: &str, lsn: &str) -> Taken {
        Taken { lsn: lsn.into(), ..taken(snapshot, 1) }
    }

    #[test]
    fn of_equal_bounds_the_position_in_the_log_decides_before_the_running_of_which_a_standby_has_none() {
        let (standby, primary) = (at("792:794:", "0/9FFFFFF8"), at("792:794:792", "0/A0000060"));
        assert!(standby.order(&primary).is_lt());
        assert!(primary.order(&standby).is_gt());
        assert!(at("792:794:", "1/0").order(&at("792:794:", "0/FFFFFFF8")).is_gt(), "numbers, not texts");
        assert!(at("792:795:", "0/1").order(&at("792:794:", "0/2")).is_gt(), "snapshots come first");
        let sorted = in_order_read(vec![primary.clone(), standby.clone()], |taken| taken);
        assert_eq!(sorted, [standby, primary]);
    }

    #[test]
    fn whoever_stands_before_an_older_transactions_late_end_has_seen_less() {
        let (paused, primary) = (at("792:794:", "0/3000060"), at("794:794:", "0/3000148"));
        assert!(paused.saw_less_than(&primary));
        assert!(!primary.saw_less_than(&paused));
        assert!(!at("792:794:", "0/3000148").saw_less_than(&primary), "as far in the log");
        assert!(at("794:794:", "0/FFFFFFF8").saw_less_than(&at("794:794:", "1/0")), "numbers, not texts");
        assert!(at("794:793:", "0/3000148").saw_less_than(&primary), "fewer transactions");
        for unreadable in ["", "/", "x", "0", "0/x", "0/100000000", "-1/0"] {
            assert!(!at("794:794:", unreadable).saw_less_than(&primary), "{unreadable:?}");
            assert!(!primary.saw_less_than(&at("794:794:", unreadable)), "{unreadable:?}");
        }
        for other in [Taken { timeline: 2, ..paused.clone() }, Taken { system_identifier: "8".into(), ..paused }] {
            assert!(!other.saw_less_than(&primary));
        }
    }

    #[test]
    fn the_end_of_a_page_of_the_log_is_one_place_before_and_behind_the_next_pages_header() {
        for (replayed, inserted) in [("0/3002000", "0/3002018"), ("0/4000000", "0/4000028"), ("1/0", "1/28")] {
            assert!(!at("5:5:", replayed).saw_less_than(&at("5:5:", inserted)), "{replayed} {inserted}");
        }
        for (replayed, inserted) in [("0/3002000", "0/3002028"), ("0/3001FF8", "0/3002018"), ("0/4000000", "0/4000050")]
        {
            assert!(at("5:5:", replayed).saw_less_than(&at("5:5:", inserted)), "{replayed} {inserted}");
        }
    }

    #[test]
    fn reads_of_different_systems_are_ordered_by_time() {
        let other = Taken { system_identifier: "8".into(), ..taken("1:2:", 9) };
        assert!(taken("100:102:", 1).order(&other).is_lt());
        let promoted = Taken { timeline: 2, ..taken("1:2:", 9) };
        assert!(taken("100:102:", 1).order(&promoted).is_lt());
    }

    #[test]
    fn a_snapshot_that_cannot_be_read_is_placed_by_its_time() {
        for text in ["", "x", "1", "1:x:", "-1:2:", "1:99999999999999999999:"] {
            assert!(taken(text, 1).order(&taken("100:102:", 2)).is_lt(), "{text:?}");
            assert!(taken("100:102:", 1).order(&taken(text, 2)).is_lt(), "{text:?}");
        }
    }

    #[test]
    fn sorting_keeps_the_order_of_snapshots_within_a_system_and_merges_systems_by_time() {
        let other = |snapshot, minute| Taken { system_identifier: "8".into(), ..taken(snapshot, minute) };
        let sorted = in_order_read(vec![other("5:5:", 4), taken("2:2:", 3), taken("1:1:", 1), other("4:4:", 2)], |t| t);
        let snapshots: Vec<&str> = sorted.iter().map(|taken| taken.snapshot.as_str()).collect();
        assert_eq!(snapshots, ["1:1:", "4:4:", "2:2:", "5:5:"]);
    }

    #[test]
    fn sorting_survives_clocks_that_contradict_the_snapshots() {
        // Each pair is ordered, all together are not: 7 by snapshot, across systems by time.
        let circles: Vec<Taken> = (0..64)
            .map(|index| {
                let minute = (index * 37) % 60;
                match index % 2 {
                    0 => taken(&format!("{0}:{0}:", 1_000 - minute), minute),
                    _ => Taken { system_identifier: "8".into(), ..taken("1:1:", minute) },
                }
            })
            .collect();
        let sorted = in_order_read(circles.clone(), |taken| taken);
        assert_eq!(sorted.len(), circles.len());
    }

    prop_compose! {
        fn any_taken()(
            system in 0..3_u8, timeline in 1..3_u32, xmax in 0..6_u64, lsn in 0..4_u8, readable in 0..4_u8,
            minute in 0..6_u32,
        ) -> Taken {
            let snapshot = if readable == 0 { "?".to_owned() } else { format!("{xmax}:{xmax}:") };
            let lsn = if lsn == 0 { "?".to_owned() } else { format!("0/{lsn}") };
            Taken { system_identifier: system.to_string(), timeline, lsn, ..taken(&snapshot, minute) }
        }
    }

    proptest! {
        #[test]
        fn sorting_loses_nothing_and_never_turns_snapshots_of_one_system_round(
            read in proptest::collection::vec(any_taken(), 0..40),
        ) {
            let numbered: Vec<(usize, Taken)> = read.into_iter().enumerate().collect();
            let sorted = in_order_read(numbered.clone(), |(_, taken)| taken);
            let mut numbers: Vec<usize> = sorted.iter().map(|(number, _)| *number).collect();
            for (index, (_, earlier)) in sorted.iter().enumerate() {
                for (_, later) in &sorted[index + 1..] {
                    let line = |taken: &Taken| (taken.system_identifier.clone(), taken.timeline, taken.snapshot == "?");
                    prop_assert!(line(earlier) != line(later) || earlier.order(later).is_le(), "{earlier:?} {later:?}");
                }
            }
            numbers.sort_unstable();
            prop_assert_eq!(numbers, (0..numbered.len()).collect::<Vec<_>>());
        }

        #[test]
        fn where_clocks_and_snapshots_agree_sorting_is_the_pairwise_order(
            minutes in proptest::collection::vec((0..2_u8, 0..60_u32), 0..40),
        ) {
            let read = minutes.into_iter().map(|(system, minute)| {
                Taken { system_identifier: system.to_string(), ..taken(&format!("{minute}:{minute}:"), minute) }
            });
            let sorted = in_order_read(read.collect(), |taken| taken);
            prop_assert!(sorted.windows(2).all(|pair| pair[0].order(&pair[1]).is_le()));
        }
    }
}

mod checks {
    use super::*;

    fn sound() -> Manifest {
        fixtures::manifest(fixtures::day("2024-05-01"), 1, State::Final, "00000001", [None; 3]).1
    }

    fn refusal(manifest: &Manifest) -> String {
        match Manifest::parse(&manifest.to_bytes()) {
            Err(DocumentError::Contradiction(problem)) => problem,
            other => panic!("not refused as a contradiction: {other:?}"),
        }
    }

    /// Asserts that the sound manifest is refused, in these words, once `harm` was done to it.
    #[track_caller]
    fn refused(words: &str, harm: impl FnOnce(&mut Manifest)) {
        let mut manifest = sound();
        harm(&mut manifest);
        let problem = refusal(&manifest);
        assert!(problem.contains(words), "{problem}");
    }

    fn frame(offset: u64, stored_bytes: u64, raw_bytes: u64, rows: u64) -> Frame {
        Frame { offset, stored_bytes, raw_bytes, rows }
    }

    /// Gives the first slice one part with these frames, and totals that agree with them.
    fn with_frames(manifest: &mut Manifest, frames: Vec<Frame>) {
        let slice = &mut manifest.slices[0];
        slice.rows = frames.iter().map(|frame| frame.rows).fold(0, u64::wrapping_add);
        slice.raw_bytes = frames.iter().map(|frame| frame.raw_bytes).fold(0, u64::wrapping_add);
        slice.stored_bytes = frames.iter().map(|frame| frame.stored_bytes).fold(0, u64::wrapping_add);
        slice.parts[0].stored_bytes = slice.stored_bytes;
        slice.parts[0].frames = frames;
    }

    #[test]
    fn a_sound_manifest_comes_back_as_it_was_written() {
        assert_eq!(Manifest::parse(&sound().to_bytes()).expect("sound"), sound());
    }

    #[test]
    fn a_window_of_another_day_or_of_more_than_a_day_is_refused() {
        let instant = fixtures::instant;
        let window = |start, end| Window { start: instant(start), end: instant(end) };
        for other in [
            window("2024-05-02T00:00:00Z", "2024-05-01T00:00:00Z"),
            window("2024-05-02T00:00:00Z", "2024-05-03T00:00:00Z"),
            window("2024-05-01T00:00:00Z", "2024-05-03T00:00:00Z"),
            window("1970-01-01T00:00:00Z", "2024-05-02T00:00:00Z"),
            window("2024-05-01T00:00:00Z", "9999-12-31T00:00:00Z"),
        ] {
            refused("its window is not one of 2024-05-01", |manifest| manifest.window = other);
        }
    }

    #[test]
    fn the_window_of_any_zone_is_taken_also_of_a_date_that_the_zone_skipped() {
        for (zone, day) in [
            ("Pacific/Kiritimati", "2024-05-01"),
            ("Etc/GMT+12", "2024-05-01"),
            ("Asia/Manila", "1800-05-01"),
            ("America/Metlakatla", "1800-05-01"),
            ("Pacific/Apia", "2011-12-29"),
            ("Pacific/Apia", "2011-12-30"),
            ("Pacific/Apia", "2011-12-31"),
        ] {
            let (zone, day): (crate::day::Zone, _) = (zone.parse().expect("a zone"), fixtures::day(day));
            let manifest = fixtures::manifest(day, 1, State::Final, "00000001", [None; 3]).1;
            let manifest = Manifest { window: zone.window(day), ..manifest };
            Manifest::parse(&manifest.to_bytes()).unwrap_or_else(|error| panic!("{} {day}: {error}", zone.name()));
        }
    }

    #[test]
    fn a_part_of_another_day_is_refused() {
        refused("is not an object of 2024-05-01", |manifest| {
            manifest.slices[1].parts[0].key = "2024-05-02/r1-00000001/x".parse().expect("a key");
        });
    }

    #[test]
    fn two_slices_of_one_table_are_refused() {
        refused("two slices of public.messages", |manifest| manifest.slices.push(manifest.slices[0].clone()));
    }

    #[test]
    fn a_slice_without_columns_or_with_more_than_a_table_can_have_is_refused() {
        refused("slice of public.messages: 0 columns", |manifest| manifest.slices[0].columns.clear());
        refused("1665 columns", |manifest| {
            manifest.slices[0].columns = vec![manifest.slices[0].columns[0].clone(); 1_665];
        });
    }

    #[test]
    fn a_key_outside_the_columns_is_refused() {
        refused("key column \"ghost\" is not among its columns", |manifest| {
            manifest.slices[0].key.push("ghost".into());
        });
    }

    #[test]
    fn bounds_without_a_time_slice_and_a_time_slice_without_bounds_are_refused() {
        let bounds = TimeBounds {
            column: "id".into(),
            kind: TimeKind::EpochSeconds,
            zone: None,
            from: "0".into(),
            to: "1".into(),
        };
        refused("a time slice has bounds", |manifest| manifest.slices[0].time = Some(bounds));
        refused("a time slice has bounds", |manifest| manifest.slices[0].kind = SliceKind::Time);
    }

    #[test]
    fn a_slice_without_parts_is_refused_even_if_it_has_no_rows() {
        refused("no parts", |manifest| {
            manifest.slices[0].parts.clear();
            (manifest.slices[0].rows, manifest.slices[0].raw_bytes, manifest.slices[0].stored_bytes) = (0, 0, 0);
        });
    }

    #[test]
    fn a_checksum_that_is_none_is_refused() {
        for sha256 in ["", "0", &"g".repeat(64), &"0".repeat(63), &"0".repeat(65), &"é".repeat(32)] {
            refused("sha256 is not 64 hex digits", |manifest| manifest.slices[0].parts[0].sha256 = sha256.to_owned());
        }
    }

    #[test]
    fn gaps_overlaps_and_empty_places_between_frames_are_refused() {
        refused("a gap between its frames at byte 0", |manifest| with_frames(manifest, vec![frame(1, 40, 100, 10)]));
        refused("a gap between its frames at byte 40", |manifest| {
            with_frames(manifest, vec![frame(0, 40, 100, 10), frame(41, 40, 100, 10)]);
        });
        refused("a gap between its frames at byte 40", |manifest| {
            with_frames(manifest, vec![frame(0, 40, 100, 10), frame(39, 40, 100, 10)]);
        });
        refused("a gap between its frames at byte 40", |manifest| {
            with_frames(manifest, vec![frame(0, 40, 100, 10), frame(40, 0, 100, 10)]);
        });
    }

    #[test]
    fn a_frame_of_several_rows_ends_at_8_mib_and_one_of_a_single_row_at_1_gib() {
        let at_limit = |raw_bytes, rows| {
            let mut manifest = sound();
            with_frames(&mut manifest, vec![frame(0, 40, raw_bytes, rows)]);
            Manifest::parse(&manifest.to_bytes()).map(|_| ())
        };
        at_limit(8 << 20, 2).expect("at the limit");
        at_limit((8 << 20) + 1, 1).expect("one longer row");
        at_limit(1 << 30, 1).expect("the longest row");
        for (raw_bytes, rows) in [((8 << 20) + 1, 2), ((8 << 20) + 1, 0), ((1 << 30) + 1, 1), (u64::MAX, 1)] {
            refused("the frame at byte 0 is larger than a frame may be", |manifest| {
                with_frames(manifest, vec![frame(0, 40, raw_bytes, rows)]);
            });
        }
    }

    #[test]
    fn a_frame_with_more_rows_than_bytes_is_refused() {
        refused("more rows than bytes", |manifest| with_frames(manifest, vec![frame(0, 40, 10, 11)]));
    }

    #[test]
    fn a_frame_stored_far_larger_than_its_rows_is_refused() {
        refused("is stored larger than its rows", |manifest| with_frames(manifest, vec![frame(0, 1_025, 0, 0)]));
        refused("is stored larger than its rows", |manifest| with_frames(manifest, vec![frame(0, u64::MAX, 10, 1)]));
        let mut manifest = sound();
        with_frames(&mut manifest, vec![frame(0, 13, 0, 0)]);
        Manifest::parse(&manifest.to_bytes()).expect("a slice without rows has one empty frame");
    }

    /// The sound manifest with its first slice in another format, in a part with these frames.
    fn in_format(format: SliceFormat, suffix: &str, frames: Vec<Frame>) -> Manifest {
        let mut manifest = sound();
        let row_bytes = frames.iter().filter(|frame| frame.rows > 0).map(|frame| frame.raw_bytes).sum();
        with_frames(&mut manifest, frames);
        let slice = &mut manifest.slices[0];
        (slice.format, slice.raw_bytes) = (format, row_bytes);
        slice.parts[0].key = format!("2024-05-01/r1-00000001/t{suffix}").parse().expect("a key");
        manifest
    }

    #[test]
    fn headers_and_trailers_are_frames_of_no_rows_and_of_no_row_bytes() {
        for (format, suffix, frames) in [
            (SliceFormat::Csv, ".csv.zst", vec![frame(0, 16, 3, 0)]),
            (SliceFormat::Csv, ".csv.zst", vec![frame(0, 16, 3, 0), frame(16, 40, 100, 10), frame(56, 40, 100, 10)]),
            (SliceFormat::Binary, ".bin.zst", vec![frame(0, 30, 19, 0), frame(30, 15, 2, 0)]),
            (SliceFormat::Binary, ".bin.zst", vec![frame(0, 30, 19, 0), frame(30, 40, 99, 9), frame(70, 15, 2, 0)]),
        ] {
            let manifest = in_format(format, suffix, frames);
            assert_eq!(Manifest::parse(&manifest.to_bytes()).expect("sound"), manifest);
        }
    }

    #[test]
    fn a_part_without_the_header_or_trailer_of_its_format_is_refused() {
        let (csv, binary) = ((SliceFormat::Csv, ".csv.zst"), (SliceFormat::Binary, ".bin.zst"));
        for ((format, suffix), frames, words) in [
            (csv, vec![], "does not begin with the header"),
            (csv, vec![frame(0, 13, 0, 0)], "does not begin with the header"),
            (csv, vec![frame(0, 16, 4, 0)], "does not begin with the header"),
            (csv, vec![frame(0, 40, 100, 10)], "does not begin with the header"),
            (csv, vec![frame(0, 16, 3, 1)], "does not begin with the header"),
            (csv, vec![frame(0, 16, 3, 0), frame(16, 16, 3, 0)], "the frame at byte 16 has no rows"),
            (csv, vec![frame(0, 16, 3, 0), frame(16, 13, 0, 0)], "the frame at byte 16 has no rows"),
            (binary, vec![frame(0, 30, 19, 0)], "does not end with the trailer"),
            (binary, vec![frame(0, 15, 2, 0)], "does not begin with the header"),
            (binary, vec![frame(0, 30, 19, 0), frame(30, 40, 99, 9)], "does not end with the trailer"),
            (binary, vec![frame(0, 30, 19, 0), frame(30, 15, 2, 0), frame(45, 15, 2, 0)], "at byte 30 has no rows"),
        ] {
            let problem = refusal(&in_format(format, suffix, frames));
            assert!(problem.contains(words), "{problem}");
        }
        refused("the frame at byte 0 has no rows", |manifest| {
            with_frames(manifest, vec![frame(0, 16, 3, 0)]);
            manifest.slices[0].raw_bytes = 0;
        });
    }

    #[test]
    fn the_name_of_a_part_and_the_format_of_its_slice_must_agree() {
        refused("text.csv.zst is not named as a part in text format is", |manifest| {
            manifest.slices[0].parts[0].key = "2024-05-01/r1-00000001/text.csv.zst".parse().expect("a key");
        });
        let manifest = in_format(SliceFormat::Binary, ".copy.zst", vec![frame(0, 30, 19, 0), frame(30, 15, 2, 0)]);
        assert!(refusal(&manifest).contains("is not named as a part in binary format is"));
    }

    #[test]
    fn totals_that_do_not_add_up_are_refused() {
        refused("its frames do not add up to its size", |manifest| manifest.slices[0].parts[0].stored_bytes += 1);
        refused("the rows of its frames do not add up", |manifest| manifest.slices[0].rows += 1);
        refused("the bytes of its frames do not add up", |manifest| manifest.slices[0].raw_bytes -= 1);
        refused("the bytes of its frames do not add up", |manifest| manifest.slices[0].stored_bytes += 1);
    }
}

mod documents {
    use super::*;

    fn written() -> serde_json::Value {
        let manifest = fixtures::manifest(fixtures::day("2024-05-01"), 1, State::Final, "00000001", [None; 3]).1;
        serde_json::to_value(manifest).expect("a document")
    }

    fn parse(document: &serde_json::Value) -> Result<Manifest, DocumentError> {
        Manifest::parse(document.to_string().as_bytes())
    }

    #[test]
    fn unknown_fields_are_ignored_at_every_level() {
        let mut document = written();
        let expected = parse(&document).expect("sound");
        for place in
            ["", "/window", "/slices/0", "/slices/0/columns/0", "/slices/0/parts/0", "/slices/0/parts/0/frames/0"]
        {
            document.pointer_mut(place).expect("a place")["from_the_future"] = serde_json::json!({ "x": [1] });
        }
        assert_eq!(parse(&document).expect("a future document"), expected);
    }

    #[test]
    fn a_newer_format_is_refused_with_the_version_needed_before_anything_else_is_judged() {
        for document in [r#"{"format": 2}"#, r#"{"slices": 7, "format": 2, "day": "the first of May"}"#] {
            let error = Manifest::parse(document.as_bytes()).expect_err("newer");
            assert!(matches!(error, DocumentError::Newer { found: 2, known: FORMAT }), "{error:?}");
            assert_eq!(error.to_string(), "format 2 is newer than this pgslice reads (1): upgrade pgslice");
        }
    }

    #[test]
    fn what_is_no_manifest_is_refused_as_unreadable() {
        let mut without_day = written();
        without_day.as_object_mut().expect("an object").remove("day");
        for document in ["", "null", "[]", "{}", r#"{"format": "1"}"#, r#"{"format": 1}"#, &without_day.to_string()] {
            let error = Manifest::parse(document.as_bytes()).expect_err("no manifest");
            assert!(matches!(error, DocumentError::Unreadable(_)), "{document}: {error:?}");
        }
    }

    #[test]
    fn keys_that_leave_the_prefix_make_a_document_unreadable() {
        let mut document = written();
        document["slices"][0]["parts"][0]["key"] = "../../etc/passwd".into();
        assert!(matches!(parse(&document), Err(DocumentError::Unreadable(_))));
    }

    #[test]
    fn checksums_name_parts_as_seen_from_beside_the_manifest() {
        let day = fixtures::day("2024-05-01");
        let (_, first) = fixtures::manifest(day, 1, State::Final, "00000001", [None; 3]);
        let (reference, second) = fixtures::manifest(day, 2, State::Final, "00000002", [Some(&first), None, None]);
        let zeros = "0".repeat(64);
        let expected = [
            format!("{zeros}  ../r1-00000001/public.messages-2024-05-01.copy.zst\n"),
            format!("{zeros}  public.users-2024-05-01.copy.zst\n"),
            format!("{zeros}  public.packages-2024-05-01.copy.zst\n"),
        ];
        assert_eq!(second.sums(&reference.key), expected.concat());
    }

    #[test]
    fn the_digest_of_a_day_depends_on_its_rows_and_not_on_the_order_of_its_slices_or_parts() {
        let day = fixtures::day("2024-05-01");
        let (_, first) = fixtures::manifest(day, 1, State::Final, "00000001", [None; 3]);
        let (_, mut second) = fixtures::manifest(day, 2, State::Provisional, "00000002", [None; 3]);
        second.slices.reverse();
        assert_eq!(first.day_digest(), second.day_digest());
        second.slices[0].rows_digest.add(b"a row");
        assert_ne!(first.day_digest(), second.day_digest());
        let fewer = Manifest { slices: first.slices[..2].to_vec(), ..first.clone() };
        assert_ne!(first.day_digest(), fewer.day_digest());
    }

    #[test]
    fn a_carried_slice_was_taken_when_it_was_first_read() {
        let day = fixtures::day("2024-05-01");
        let (_, mut manifest) = fixtures::manifest(day, 1, State::Final, "00000001", [None; 3]);
        manifest.slices[0].taken = Some(taken("5:5:", 1));
        assert_eq!(manifest.taken_of(&manifest.slices[0]).snapshot, "5:5:");
        assert_eq!(manifest.taken_of(&manifest.slices[1]), &manifest.taken);
    }
}
