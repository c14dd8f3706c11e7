//! Rows of COPY's text format as its binary one. Pure.
//!
//! A server takes binary rows in a tenth less time: it need not look for the ends of lines and fields, nor read numbers.
//! What is written here is what PostgreSQL's own functions read from the text
//! (<https://www.postgresql.org/docs/current/sql-copy.html>; for values `src/backend/utils/adt/*.c`, functions `…_recv`),
//! for types whose text is simple, and only where the text can mean nothing else. Anything but what COPY writes under the
//! settings of a session of ours may be [`Unusual`]: then the server reads the text itself, and judges it.

use std::ops::{ControlFlow, Range};

use memchr::{memchr, memchr2, memchr3};

use crate::manifest::Column;

/// So much is written before it is sent.
const ENOUGH_BYTES: usize = 64 << 10;
const NULL: &[u8] = b"\\N";
const NULL_LENGTH: i32 = -1;
/// The form of `jsonb` that is its text.
const JSONB_VERSION: u8 = 1;
const NUMERIC_HEAD_BYTES: usize = 8;
/// Servers refuse a numeric with more digits behind the point, but for text, of which they round them away.
const MOST_SCALE: usize = 0x3fff;
/// Days and microseconds since 2000-01-01 that servers know: `IS_VALID_DATE` and `IS_VALID_TIMESTAMP` of PostgreSQL's
/// `datatype/timestamp.h`. Beyond them lie the infinite ones.
const KNOWN_DAYS: Range<i64> = -2_451_545..2_145_031_949;
const KNOWN_MICROS: Range<i64> = -211_813_488_000_000_000..9_223_371_331_200_000_000;
/// From the first day of year 1 to 2000-01-01, which dates and timestamps are counted from.
const EPOCH_DAYS: i64 = 730_119;
const MICROS_A_DAY: i64 = 86_400_000_000;

/// How the values of a type are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "they are named as the types are")]
pub enum Form {
    /// As they are.
    Characters,
    Boolean,
    Int2,
    Int4,
    Int8,
    Float4,
    Float8,
    Numeric,
    Uuid,
    Bytes,
    Jsonb,
    Date,
    Timestamp,
    /// Whose text is in UTC.
    TimestampWithZone,
}

impl Form {
    /// Of the type of a replica's column; `None` where it is not known here.
    pub fn of(column: &Column) -> Option<Form> {
        if column.type_schema != "pg_catalog" {
            return None;
        }
        Some(match column.type_name.as_str() {
            "text" | "varchar" | "bpchar" | "json" => Form::Characters,
            "bool" => Form::Boolean,
            "int2" => Form::Int2,
            "int4" => Form::Int4,
            "int8" => Form::Int8,
            "float4" => Form::Float4,
            "float8" => Form::Float8,
            "numeric" => Form::Numeric,
            "uuid" => Form::Uuid,
            "bytea" => Form::Bytes,
            "jsonb" => Form::Jsonb,
            "date" => Form::Date,
            "timestamp" => Form::Timestamp,
            "timestamptz" => Form::TimestampWithZone,
            _ => return None,
        })
    }
}

/// Text that COPY does not write for its column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a value is not written as COPY writes it")]
pub struct Unusual;

/// Writes whole rows of text, as many as are enough to be sent, behind what `binary` holds; returns how many bytes of
/// text these are.
///
/// # Errors
/// [`Unusual`]; what was written is of no use then.
pub fn write_rows(forms: &[Form], text: &[u8], binary: &mut Vec<u8>) -> Result<usize, Unusual> {
    let count = i16::try_from(forms.len()).map_err(|_| Unusual)?.to_be_bytes();
    if forms.is_empty() {
        return Err(Unusual);
    }
    let mut rest = text;
    while !rest.is_empty() && binary.len() < ENOUGH_BYTES {
        binary.extend_from_slice(&count);
        for (place, form) in forms.iter().enumerate() {
            let end = write_field(*form, rest, binary)?;
            let expected = if place + 1 == forms.len() { b'\n' } else { b'\t' };
            if rest.get(end) != Some(&expected) {
                return Err(Unusual);
            }
            rest = &rest[end + 1..];
        }
    }
    Ok(text.len() - rest.len())
}

/// Writes the field that `text` begins with, and returns where it ends.
fn write_field(form: Form, text: &[u8], binary: &mut Vec<u8>) -> Result<usize, Unusual> {
    let start = binary.len();
    binary.extend_from_slice(&NULL_LENGTH.to_be_bytes());
    if text.starts_with(NULL) && matches!(text.get(NULL.len()), Some(b'\t' | b'\n')) {
        return Ok(NULL.len());
    }
    let end = match form {
        Form::Characters => write_characters(text, binary)?,
        Form::Jsonb => {
            binary.push(JSONB_VERSION);
            write_characters(text, binary)?
        }
        _ => {
            let end = memchr2(b'\t', b'\n', text).ok_or(Unusual)?;
            write_value(form, &text[..end], binary)?;
            end
        }
    };
    let length = i32::try_from(binary.len() - start - size_of::<i32>()).map_err(|_| Unusual)?;
    binary[start..start + size_of::<i32>()].copy_from_slice(&length.to_be_bytes());
    Ok(end)
}

/// Characters without COPY's escapes.
fn write_characters(text: &[u8], binary: &mut Vec<u8>) -> Result<usize, Unusual> {
    let mut from = 0;
    loop {
        let end = from + memchr3(b'\\', b'\t', b'\n', &text[from..]).ok_or(Unusual)?;
        // COPY writes it as `\r`: this one may be half of a line's end.
        if memchr(b'\r', &text[from..end]).is_some() {
            return Err(Unusual);
        }
        binary.extend_from_slice(&text[from..end]);
        if text[end] != b'\\' {
            return Ok(end);
        }
        binary.push(match text.get(end + 1) {
            Some(b'\\') => b'\\',
            Some(b'b') => 0x08,
            Some(b'f') => 0x0c,
            Some(b'n') => b'\n',
            Some(b'r') => b'\r',
            Some(b't') => b'\t',
            Some(b'v') => 0x0b,
            _ => return Err(Unusual),
        });
        from = end + 2;
    }
}

fn write_value(form: Form, value: &[u8], binary: &mut Vec<u8>) -> Result<(), Unusual> {
    match form {
        Form::Characters | Form::Jsonb => binary.extend_from_slice(value),
        Form::Boolean => binary.push(match value {
            b"t" => 1,
            b"f" => 0,
            _ => return Err(Unusual),
        }),
        Form::Int2 => binary.extend_from_slice(&i16::try_from(integer(value)?).map_err(|_| Unusual)?.to_be_bytes()),
        Form::Int4 => binary.extend_from_slice(&i32::try_from(integer(value)?).map_err(|_| Unusual)?.to_be_bytes()),
        Form::Int8 => binary.extend_from_slice(&integer(value)?.to_be_bytes()),
        Form::Float4 => {
            let float: f32 = float(value)?;
            binary.extend_from_slice(&float.to_be_bytes());
        }
        Form::Float8 => {
            let float: f64 = float(value)?;
            binary.extend_from_slice(&float.to_be_bytes());
        }
        Form::Numeric => write_numeric(value, binary)?,
        Form::Uuid => binary.extend_from_slice(&uuid(value)?),
        Form::Bytes => {
            let digits = value.strip_prefix(br"\\x").ok_or(Unusual)?;
            let start = binary.len();
            binary.resize(start + digits.len() / 2, 0);
            hex::decode_to_slice(digits, &mut binary[start..]).map_err(|_| Unusual)?;
        }
        Form::Date => {
            let days = match infinite(value) {
                Some(Infinite::Late) => i32::MAX,
                Some(Infinite::Early) => i32::MIN,
                None => {
                    let (days, _) = moment(value, Clock::None)?;
                    i32::try_from(known(&KNOWN_DAYS, days)?).map_err(|_| Unusual)?
                }
            };
            binary.extend_from_slice(&days.to_be_bytes());
        }
        Form::Timestamp | Form::TimestampWithZone => {
            let micros = match infinite(value) {
                Some(Infinite::Late) => i64::MAX,
                Some(Infinite::Early) => i64::MIN,
                None => {
                    let clock = if form == Form::Timestamp { Clock::Local } else { Clock::Utc };
                    let (days, micros) = moment(value, clock)?;
                    let since = days.checked_mul(MICROS_A_DAY).and_then(|whole| whole.checked_add(micros));
                    known(&KNOWN_MICROS, since.ok_or(Unusual)?)?
                }
            };
            binary.extend_from_slice(&micros.to_be_bytes());
        }
    }
    Ok(())
}

fn known(range: &Range<i64>, number: i64) -> Result<i64, Unusual> {
    range.contains(&number).then_some(number).ok_or(Unusual)
}

fn integer(value: &[u8]) -> Result<i64, Unusual> {
    let (is_negative, digits) = signed(value);
    digits_value(digits, |whole, digit| {
        let shifted = whole.checked_mul(10)?;
        if is_negative { shifted.checked_sub(digit) } else { shifted.checked_add(digit) }
    })
}

fn signed(value: &[u8]) -> (bool, &[u8]) {
    value.strip_prefix(b"-").map_or((false, value), |digits| (true, digits))
}

fn digits_value(digits: &[u8], add: impl Fn(i64, i64) -> Option<i64>) -> Result<i64, Unusual> {
    if digits.is_empty() {
        return Err(Unusual);
    }
    let value = digits.iter().try_fold(0_i64, |whole, digit| {
        let next = digit.is_ascii_digit().then(|| i64::from(digit - b'0')).and_then(|digit| add(whole, digit));
        next.map_or(ControlFlow::Break(()), ControlFlow::Continue)
    });
    value.continue_value().ok_or(Unusual)
}

/// A number of digits only.
fn digits(value: &[u8]) -> Result<i64, Unusual> {
    digits_value(value, |whole, digit| whole.checked_mul(10)?.checked_add(digit))
}

/// The nearest float, as the server finds it. One that only rounding makes infinite or zero is refused by the server.
fn float<F: std::str::FromStr + Into<f64> + Copy>(value: &[u8]) -> Result<F, Unusual> {
    let text = str::from_utf8(value).map_err(|_| Unusual)?;
    let float: F = match text {
        "NaN" | "Infinity" | "-Infinity" => return text.parse().map_err(|_| Unusual),
        _ if value.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'.' | b'e' | b'+' | b'-')) => {
            text.parse().map_err(|_| Unusual)?
        }
        _ => return Err(Unusual),
    };
    let mantissa = value.split(|byte| *byte == b'e').next().unwrap_or_default();
    let is_nothing = mantissa.iter().all(|byte| !matches!(byte, b'1'..=b'9'));
    let found: f64 = float.into();
    if found.is_infinite() || (found == 0.0) != is_nothing { Err(Unusual) } else { Ok(float) }
}

/// Digits of base 10,000 before and after the point, without zeros at the ends: how many, the place of the first, the
/// sign, how many decimal digits follow the point, and they.
fn write_numeric(value: &[u8], binary: &mut Vec<u8>) -> Result<(), Unusual> {
    let head = |count: u16, weight: i16, sign: u16, scale: u16| {
        let mut head = [0; NUMERIC_HEAD_BYTES];
        for (place, number) in [count, weight.cast_unsigned(), sign, scale].into_iter().enumerate() {
            head[2 * place..2 * place + 2].copy_from_slice(&number.to_be_bytes());
        }
        head
    };
    let start = binary.len();
    let special = match value {
        b"NaN" => Some((0xc000, 0)),
        // The scale says nothing; it is the one that servers send.
        b"Infinity" => Some((0xd000, 32)),
        b"-Infinity" => Some((0xf000, 32)),
        _ => None,
    };
    if let Some((sign, scale)) = special {
        binary.extend_from_slice(&head(0, 0, sign, scale));
        return Ok(());
    }
    let (is_negative, magnitude) = signed(value);
    let point = memchr(b'.', magnitude);
    let (whole, fraction) = point.map_or((magnitude, &[][..]), |point| (&magnitude[..point], &magnitude[point + 1..]));
    let is_number = !whole.is_empty() && (point.is_none() || !fraction.is_empty());
    if !is_number || fraction.len() > MOST_SCALE || !whole.iter().chain(fraction).all(u8::is_ascii_digit) {
        return Err(Unusual);
    }
    binary.extend_from_slice(&[0; NUMERIC_HEAD_BYTES]);
    // The first group is short if need be, and the last one is filled with zeros.
    let (first, others) = whole.split_at(whole.len() % 4);
    let groups = std::iter::once(first).filter(|group| !group.is_empty()).chain(others.chunks(4));
    let groups = groups.map(|group| (group, 0)).chain(fraction.chunks(4).map(|group| (group, 4 - group.len())));
    let mut weight = i64::try_from(whole.len().div_ceil(4)).map_err(|_| Unusual)? - 1;
    let digits_start = start + NUMERIC_HEAD_BYTES;
    for (group, zeros) in groups {
        let digits = group.iter().map(|digit| u16::from(digit - b'0')).chain(std::iter::repeat_n(0, zeros));
        let number = digits.fold(0, |number, digit| number * 10 + digit);
        if number == 0 && binary.len() == digits_start {
            weight -= 1;
        } else {
            binary.extend_from_slice(&u16::to_be_bytes(number));
        }
    }
    while binary.len() > digits_start && binary.ends_with(&[0, 0]) {
        binary.truncate(binary.len() - 2);
    }
    let count = u16::try_from((binary.len() - digits_start) / 2).map_err(|_| Unusual)?;
    let scale = u16::try_from(fraction.len()).map_err(|_| Unusual)?;
    let (weight, is_negative) = if count == 0 { (0, false) } else { (weight, is_negative) };
    let weight = i16::try_from(weight).map_err(|_| Unusual)?;
    let sign = if is_negative { 0x4000 } else { 0 };
    binary[start..digits_start].copy_from_slice(&head(count, weight, sign, scale));
    Ok(())
}

fn uuid(value: &[u8]) -> Result<[u8; 16], Unusual> {
    let mut digits = [0; 32];
    let mut filled = 0;
    if value.len() != 36 {
        return Err(Unusual);
    }
    for (place, byte) in value.iter().enumerate() {
        if matches!(place, 8 | 13 | 18 | 23) {
            if *byte != b'-' {
                return Err(Unusual);
            }
        } else {
            digits[filled] = *byte;
            filled += 1;
        }
    }
    let mut bytes = [0; 16];
    hex::decode_to_slice(digits, &mut bytes).map_err(|_| Unusual)?;
    Ok(bytes)
}

/// Beyond all times.
enum Infinite {
    Late,
    Early,
}

fn infinite(value: &[u8]) -> Option<Infinite> {
    match value {
        b"infinity" => Some(Infinite::Late),
        b"-infinity" => Some(Infinite::Early),
        _ => None,
    }
}

/// What follows a date.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Clock {
    None,
    Local,
    Utc,
}

/// A date, or a date and time, as `DateStyle` ISO has it, `2024-05-01 12:00:00.25+00 BC`: days since 2000-01-01, and
/// microseconds of the day.
fn moment(value: &[u8], clock: Clock) -> Result<(i64, i64), Unusual> {
    let (value, is_before_christ) = value.strip_suffix(b" BC").map_or((value, false), |value| (value, true));
    let (date, time) = match clock {
        Clock::None => (value, None),
        Clock::Local | Clock::Utc => {
            let space = memchr(b' ', value).ok_or(Unusual)?;
            (&value[..space], Some(&value[space + 1..]))
        }
    };
    let time = match (clock, time) {
        (Clock::Utc, Some(time)) => Some(time.strip_suffix(b"+00").ok_or(Unusual)?),
        (_, time) => time,
    };
    let mut parts = date.split(|byte| *byte == b'-');
    let mut part = |shortest: usize, longest: usize| {
        let part = parts.next().filter(|part| (shortest..=longest).contains(&part.len())).ok_or(Unusual)?;
        digits(part)
    };
    let (year, month, day) = (part(4, 7)?, part(2, 2)?, part(2, 2)?);
    if parts.next().is_some() || year == 0 {
        return Err(Unusual);
    }
    // There is no year 0: the one before year 1 is called 1 BC.
    let year = if is_before_christ { 1 - year } else { year };
    Ok((days(year, month, day)?, time.map_or(Ok(0), micros_of_day)?))
}

/// `12:00:00`, with up to six digits of a fraction.
fn micros_of_day(time: &[u8]) -> Result<i64, Unusual> {
    let (clock, fraction) = match time.get(8) {
        None => (time, &[][..]),
        Some(b'.') if (1..=6).contains(&(time.len() - 9)) => (&time[..8], &time[9..]),
        Some(_) => return Err(Unusual),
    };
    let [h, hh, b':', m, mm, b':', s, ss] = clock else { return Err(Unusual) };
    let (hours, minutes, seconds) = (digits(&[*h, *hh])?, digits(&[*m, *mm])?, digits(&[*s, *ss])?);
    if hours > 23 || minutes > 59 || seconds > 59 {
        return Err(Unusual);
    }
    let mut micros = if fraction.is_empty() { 0 } else { digits(fraction)? };
    for _ in fraction.len()..6 {
        micros *= 10;
    }
    Ok(((hours * 60 + minutes) * 60 + seconds) * 1_000_000 + micros)
}

/// Days since 2000-01-01 of a date in the Gregorian calendar, which is taken to have always been; year 0 is 1 BC.
fn days(year: i64, month: i64, day: i64) -> Result<i64, Unusual> {
    let is_leap = year.rem_euclid(4) == 0 && (year.rem_euclid(100) != 0 || year.rem_euclid(400) == 0);
    let lengths = [31, if is_leap { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let month = usize::try_from(month - 1).map_err(|_| Unusual)?;
    let length = *lengths.get(month).ok_or(Unusual)?;
    if !(1..=length).contains(&day) {
        return Err(Unusual);
    }
    let before = year - 1;
    let years = before * 365 + before.div_euclid(4) - before.div_euclid(100) + before.div_euclid(400);
    Ok(years + lengths[..month].iter().sum::<i64>() + day - 1 - EPOCH_DAYS)
}

#[cfg(test)]
mod tests;
