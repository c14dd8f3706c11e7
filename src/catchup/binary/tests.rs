use super::*;

/// The binary form of one row.
fn written(forms: &[Form], row: &str) -> Result<Vec<u8>, Unusual> {
    let mut binary = Vec::new();
    let taken = write_rows(forms, row.as_bytes(), &mut binary)?;
    assert_eq!(taken, row.len());
    Ok(binary)
}

/// What a value comes to, behind the count of fields and its own length.
fn value(form: Form, text: &str) -> Result<Vec<u8>, Unusual> {
    let row = written(&[form], &format!("{text}\n"))?;
    assert_eq!(row[..2], [0, 1]);
    let length = i32::from_be_bytes(*row[2..].first_chunk().expect("a length"));
    assert_eq!(usize::try_from(length), Ok(row.len() - 6), "{text}");
    Ok(row[6..].to_vec())
}

/// As psql shows `…send(value)`.
fn hex_of(form: Form, text: &str) -> String {
    hex::encode(value(form, text).unwrap_or_else(|_| panic!("{text} is usual")))
}

#[test]
fn rows_have_their_fields_in_order_with_lengths_and_nulls() {
    let row = written(&[Form::Int4, Form::Characters, Form::Boolean], "7\t\\N\tt\n").expect("usual");
    assert_eq!(row, [0, 3, 0, 0, 0, 4, 0, 0, 0, 7, 255, 255, 255, 255, 0, 0, 0, 1, 1]);
    assert_eq!(written(&[Form::Characters, Form::Characters], "\t\n").expect("usual"), [0, 2, 0, 0, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn rows_are_written_until_it_is_enough_to_be_sent() {
    let text = "1\n".repeat(20_000);
    let (mut rest, mut pieces, mut total) = (text.as_bytes(), 0, 0);
    while !rest.is_empty() {
        let mut binary = Vec::new();
        let taken = write_rows(&[Form::Int2], rest, &mut binary).expect("usual");
        assert!(binary.len() < ENOUGH_BYTES + 8);
        (rest, pieces, total) = (&rest[taken..], pieces + 1, total + binary.len());
    }
    assert_eq!((pieces, total), (3, 160_000));
}

#[test]
fn characters_lose_the_escapes_that_copy_gave_them() {
    let text = r"a\tb\nc\rd\be\vf\fg\\h\\Nüß";
    assert_eq!(value(Form::Characters, text).expect("usual"), "a\tb\nc\rd\x08e\x0bf\x0cg\\h\\Nüß".as_bytes());
    assert_eq!(value(Form::Jsonb, r#"{"a": "\\n"}"#).expect("usual"), b"\x01{\"a\": \"\\n\"}");
    // A value that only begins as NULL does.
    assert_eq!(value(Form::Characters, r"\\N").expect("usual"), b"\\N");
}

#[test]
fn numbers_are_those_of_the_server() {
    assert_eq!(hex_of(Form::Int2, "-32768"), "8000");
    assert_eq!(hex_of(Form::Int4, "2147483647"), "7fffffff");
    assert_eq!(hex_of(Form::Int8, "-9223372036854775808"), "8000000000000000");
    assert_eq!(hex_of(Form::Float8, "0.1"), "3fb999999999999a");
    assert_eq!(hex_of(Form::Float8, "-0"), "8000000000000000");
    assert_eq!(hex_of(Form::Float4, "1e+20"), "60ad78ec");
    assert_eq!(hex_of(Form::Float8, "-Infinity"), "fff0000000000000");
    assert_eq!(hex_of(Form::Float8, "NaN"), "7ff8000000000000");
    assert_eq!(hex_of(Form::Numeric, "0"), "0000000000000000");
    assert_eq!(hex_of(Form::Numeric, "0.00"), "0000000000000002");
    assert_eq!(hex_of(Form::Numeric, "-12345.6"), "0003000140000001000109291770");
    assert_eq!(hex_of(Form::Numeric, "10000"), "00010001000000000001");
    assert_eq!(hex_of(Form::Numeric, "0.00001"), "0001fffe0000000503e8");
    assert_eq!(hex_of(Form::Numeric, "NaN"), "00000000c0000000");
}

#[test]
fn times_are_those_of_the_server() {
    assert_eq!(hex_of(Form::Date, "2000-01-01"), "00000000");
    assert_eq!(hex_of(Form::Date, "1999-12-31"), "ffffffff");
    assert_eq!(hex_of(Form::Date, "2024-02-29"), "00002279");
    assert_eq!(hex_of(Form::Date, "4713-01-01 BC"), format!("{:08x}", -2_451_507_i32));
    assert_eq!(hex_of(Form::Date, "infinity"), "7fffffff");
    let micros =
        |text: &str, form| i64::from_be_bytes(*value(form, text).expect("usual").first_chunk().expect("eight"));
    assert_eq!(micros("2000-01-02 03:04:05.6", Form::Timestamp), 97_445_600_000);
    assert_eq!(micros("1999-12-31 23:59:59.999999", Form::Timestamp), -1);
    assert_eq!(micros("2000-01-01 00:00:01+00", Form::TimestampWithZone), 1_000_000);
    assert_eq!(micros("0001-12-31 00:00:00+00 BC", Form::TimestampWithZone), -730_120 * MICROS_A_DAY);
    assert_eq!(micros("-infinity", Form::Timestamp), i64::MIN);
}

#[test]
fn what_copy_does_not_write_is_left_to_the_server() {
    for (form, texts) in [
        (Form::Characters, &[r"\.", r"\x41", r"\101", r"\q", "a\\", "one\r", "t\rwo"][..]),
        (Form::Boolean, &["true", "", "1", "T"]),
        (Form::Int2, &["32768", "", "-", "+1", " 1", "1 ", "0x10", "1_000"]),
        (Form::Int8, &["9223372036854775808", "-9223372036854775809"]),
        (Form::Float8, &["inf", "infinity", "nan", "1e400", "1e-400", "0x1p3", "", " 1", "."]),
        (Form::Float4, &["1e39", "1e-60"]),
        (Form::Numeric, &["", "-", ".5", "5.", "1e5", "+1", "1_000", "nan", "1.2.3"]),
        (Form::Uuid, &["", "A0EEBC999C0B4EF8BB6D6BB9BD380A11", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a1g"]),
        (Form::Bytes, &["", "abc", r"\\x1", r"\\xzz", r"\x00"]),
        (
            Form::Date,
            &["2024-02-30", "2023-02-29", "2024-13-01", "0000-01-01", "today", "2024-5-1", "20240501", "05/01/2024"],
        ),
        (Form::Timestamp, &["2024-05-01", "2024-05-01 24:00:00", "2024-05-01 10:00", "2024-05-01 10:00:00+00", "now"]),
        (
            Form::Timestamp,
            &["2024-05-01T10:00:00", "2024-05-01 10:00:00.", "2024-05-01 10:00:00.1234567", "9999999-01-01 00:00:00"],
        ),
        (Form::TimestampWithZone, &["2024-05-01 10:00:00", "2024-05-01 10:00:00+02", "2024-05-01 10:00:00+00:30"]),
    ] {
        for text in texts {
            assert_eq!(value(form, text), Err(Unusual), "{form:?} {text}");
        }
    }
}

#[test]
fn what_servers_do_not_know_is_left_to_them_and_never_infinite() {
    for (form, first, last, beyond) in [
        (Form::Date, "4714-11-24 BC", "5874897-12-31", ["5881610-07-11", "5877612-06-22 BC"]),
        (
            Form::Timestamp,
            "4714-11-24 00:00:00 BC",
            "294276-12-31 23:59:59.999999",
            ["294277-01-09 04:00:54.775807", "290279-12-22 19:59:05.224192 BC"],
        ),
    ] {
        assert!(value(form, first).is_ok() && value(form, last).is_ok(), "{form:?}");
        for text in beyond {
            assert_eq!(value(form, text), Err(Unusual), "{text}");
        }
    }
    let digits = |count| format!("0.{}", "1".repeat(count));
    assert!(value(Form::Numeric, &digits(MOST_SCALE)).is_ok());
    assert_eq!(value(Form::Numeric, &digits(MOST_SCALE + 1)), Err(Unusual));
}

#[test]
fn rows_of_another_width_are_left_to_the_server() {
    for text in ["1\n", "1\t2\t3\n", "1\t2", "", "\n"] {
        let outcome = written(&[Form::Int4, Form::Int4], text);
        assert_eq!(outcome, if text.is_empty() { Ok(Vec::new()) } else { Err(Unusual) }, "{text:?}");
    }
    assert_eq!(written(&[], "\n"), Err(Unusual));
}
