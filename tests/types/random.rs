//! Random values: the same ones for the same seed on every machine.

/// SplitMix64.
pub(super) struct Dice(pub(super) u64);

impl Dice {
    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn roll(&mut self, sides: u64) -> u64 {
        self.bits() % sides
    }

    pub(super) fn between(&mut self, least: i64, most: i64) -> i64 {
        let span = u64::try_from(i128::from(most) - i128::from(least) + 1).expect("a small range");
        least + i64::try_from(self.roll(span)).expect("within the range")
    }

    fn pick<'a>(&mut self, among: &[&'a str]) -> &'a str {
        among[usize::try_from(self.roll(among.len() as u64)).expect("small")]
    }

    fn several(&mut self, most: u64, mut one: impl FnMut(&mut Dice) -> String) -> Vec<String> {
        (0..self.roll(most + 1)).map(|_| one(self)).collect()
    }

    pub(super) fn digits(&mut self, count: u64) -> String {
        (0..count).map(|_| char::from(b'0' + u8::try_from(self.roll(10)).expect("a digit"))).collect()
    }

    /// Any characters but NUL, those more often that a format gives a meaning to.
    fn text(&mut self) -> String {
        self.several(30, |dice| match dice.roll(3) {
            0 => dice
                .pick(&["\\", "\n", "\r", "\t", "\"", "'", ",", ".", "N", "{", "}", "(", ")", " ", "\\.", "\\N"])
                .to_owned(),
            1 => char::from(b' ' + u8::try_from(dice.roll(95)).expect("below 127")).to_string(),
            _ => loop {
                let code = u32::try_from(dice.roll(0x11_0000)).expect("a code point");
                if let Some(character) = char::from_u32(code).filter(|character| *character != '\0') {
                    break character.to_string();
                }
            },
        })
        .concat()
    }

    fn json(&mut self, depth: u32) -> String {
        let quoted = |text: String| serde_json::to_string(&text).expect("text is JSON");
        match self.roll(if depth == 0 { 4 } else { 6 }) {
            0 => self.pick(&["null", "true", "false", "0", "-0.0", "1e5"]).to_owned(),
            1 => format!("{}.{}", self.between(-99, 99), self.digits(3)),
            2 | 3 => quoted(self.text()),
            4 => format!("[{}]", self.several(4, |dice| dice.json(depth - 1)).join(", ")),
            _ => {
                let members = self.several(4, |dice| format!("{}: {}", quoted(dice.text()), dice.json(depth - 1)));
                format!("{{{}}}", members.join(","))
            }
        }
    }

    fn date(&mut self) -> String {
        let latest = if self.roll(4) == 0 { 4_700 } else { 290_000 };
        let year = self.between(1, latest);
        let era = if year < 4_700 && self.roll(4) == 0 { " BC" } else { "" };
        format!("{year:04}-{:02}-{:02}|{era}", self.between(1, 12), self.between(1, 28))
    }

    fn clock(&mut self) -> String {
        format!("{:02}:{:02}:{:02}.{}", self.roll(24), self.roll(60), self.roll(60), self.digits(6))
    }

    fn moment(&mut self, zone: &str) -> String {
        let (date, clock) = (self.date(), self.clock());
        date.replace('|', &format!(" {clock}{zone}"))
    }
}

/// The types that [`value`] has values of.
pub(super) const TYPES: [&str; 24] = [
    "int2",
    "int8",
    "float4",
    "float8",
    "numeric",
    "text",
    "bytea",
    "date",
    "time",
    "timestamp",
    "timestamptz",
    "interval",
    "uuid",
    "inet",
    "varbit",
    "json",
    "jsonb",
    "int4range",
    "numrange",
    "point",
    "macaddr",
    "tsvector",
    "text[]",
    "numeric[]",
];

/// A value of one of [`TYPES`], as its input function reads it.
pub(super) fn value(type_name: &str, dice: &mut Dice) -> String {
    match type_name {
        "int2" => dice.between(i64::from(i16::MIN), i64::from(i16::MAX)).to_string(),
        "int8" => dice.bits().cast_signed().to_string(),
        "float4" => {
            let bits = u32::try_from(dice.bits() >> 32).expect("32 bits");
            named(format!("{:e}", f32::from_bits(bits)))
        }
        "float8" => named(format!("{:e}", f64::from_bits(dice.bits()))),
        "numeric" => numeric(dice),
        "text" => dice.text(),
        "bytea" => format!("\\x{}", dice.several(60, |dice| format!("{:02x}", dice.roll(256))).concat()),
        "date" => dice.date().replace('|', ""),
        "time" => dice.clock(),
        "timestamp" => dice.moment(""),
        "timestamptz" => dice.moment("+00"),
        "interval" => format!(
            "{} mons {} days {}{}",
            dice.between(-2_000_000, 2_000_000),
            dice.between(-2_000_000, 2_000_000),
            dice.pick(&["", "-"]),
            dice.clock()
        ),
        "uuid" => format!("{:016x}{:016x}", dice.bits(), dice.bits()),
        "inet" if dice.roll(2) == 0 => {
            let bytes: Vec<String> = (0..4).map(|_| dice.roll(256).to_string()).collect();
            format!("{}/{}", bytes.join("."), dice.roll(33))
        }
        "inet" => {
            let words: Vec<String> = (0..8).map(|_| format!("{:x}", dice.roll(65_536) * dice.roll(2))).collect();
            format!("{}/{}", words.join(":"), dice.roll(129))
        }
        "varbit" => dice.several(100, |dice| dice.roll(2).to_string()).concat(),
        "json" => dice.json(3),
        // Nothing that only json keeps.
        "jsonb" => dice.json(3),
        "int4range" => {
            let least = dice.between(-1_000_000, 1_000_000);
            let most = least + dice.between(0, 1_000_000);
            format!("{}{least},{most}{}", dice.pick(&["[", "("]), dice.pick(&["]", ")"]))
        }
        "numrange" => {
            let least = dice.between(-1_000, 1_000);
            let most = least + dice.between(1, 1_000);
            format!("{}{least}.{},{most}.9{}", dice.pick(&["[", "("]), dice.digits(3), dice.pick(&["]", ")"]))
        }
        "point" => format!("({},{})", value("float8", dice), value("float8", dice)),
        "macaddr" => format!("{:012x}", dice.bits() >> 16),
        "tsvector" => {
            let word = |dice: &mut Dice| {
                let text: String = format!("w{}", dice.text()).replace('\\', "\\\\").replace('\'', "''");
                format!("'{text}':{}{}", dice.between(1, 16_383), dice.pick(&["", "A", "B", "C"]))
            };
            dice.several(5, word).join(" ")
        }
        "text[]" => array(dice, |dice| dice.text()),
        "numeric[]" => array(dice, numeric),
        other => panic!("no random values of {other}"),
    }
}

fn numeric(dice: &mut Dice) -> String {
    let (before, after) = (dice.roll(40), dice.roll(40));
    format!("{}{}.{}0", dice.pick(&["", "-"]), dice.digits(before + 1), dice.digits(after))
}

/// A float as PostgreSQL calls it.
fn named(text: String) -> String {
    text.replace("inf", "Infinity")
}

fn array(dice: &mut Dice, mut element: impl FnMut(&mut Dice) -> String) -> String {
    let bound = dice.between(-3, 3);
    let mut elements = dice.several(6, |dice| {
        if dice.roll(5) == 0 {
            return "NULL".to_owned();
        }
        format!("\"{}\"", element(dice).replace('\\', "\\\\").replace('"', "\\\""))
    });
    if elements.is_empty() {
        return "{}".to_owned();
    }
    let most = bound + i64::try_from(elements.len()).expect("few") - 1;
    let first = elements.remove(0);
    let rest: String = elements.iter().map(|element| format!(",{element}")).collect();
    format!("[{bound}:{most}]={{{first}{rest}}}")
}
