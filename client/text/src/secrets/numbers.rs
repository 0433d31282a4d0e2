//! Numbers with a shape and a check: payment cards, bank accounts, social security.

use super::SecretKind;

/// The most groups of digits that a number has.
const MOST_GROUPS: usize = 5;

/// From here on scripts put no space between words, so that a letter beside a number is not of it.
const UNSPACED: u32 = 0x2e80;

/// Whether a number that is a secret begins at `at`, which is behind no letter or digit of ASCII.
pub(super) fn at(line: &str, at: usize) -> Option<SecretKind> {
    let bytes = line.as_bytes();
    if bytes.get(at).is_some_and(u8::is_ascii_digit) {
        return number(line, at);
    }
    let named = bytes.get(at..at + 4).filter(|word| word.eq_ignore_ascii_case(b"IBAN")).map(|_| at + 4);
    let is_one = is_account(bytes, at) || named.is_some_and(|at| is_account(bytes, at));
    is_one.then_some(SecretKind::BankAccount)
}

/// A run of digits: what stands between it and the one before, its digits, and where it ends.
struct Group<'a> {
    separator: u8,
    digits: &'a [u8],
    end: usize,
}

fn number(line: &str, at: usize) -> Option<SecretKind> {
    let bytes = line.as_bytes();
    let back = |count: usize| at.checked_sub(count).and_then(|place| bytes.get(place)).copied();
    let follows_digit = back(2).is_some_and(|byte| byte.is_ascii_digit());
    match back(1) {
        // A path, a telephone number, a decimal.
        Some(b'/' | b'+' | b'%') => return None,
        Some(b'.') if follows_digit => return None,
        Some(_) | None => {}
    }
    let groups = groups(bytes, at);
    let is_dashed = |groups: &[Group<'_>]| groups.iter().skip(1).all(|group| group.separator == b'-');
    if let [area, group, serial, rest @ ..] = groups.as_slice()
        && is_dashed(&groups[..3])
        && rest.first().is_none_or(|next| next.separator != b'-')
        && is_social_security([area, group, serial].map(|group| group.digits))
        && stands_alone(bytes, at)
        && ends(line, serial.end)
    {
        return Some(SecretKind::SocialSecurity);
    }
    let has_shape = |shape: &[usize]| {
        let Some(groups) = groups.get(..shape.len()) else { return false };
        let digits: Vec<&[u8]> = groups.iter().map(|group| group.digits).collect();
        let dots = groups.iter().skip(1).filter(|group| group.separator == b'.').count();
        let is_whole = groups.last().is_some_and(|last| ends(line, last.end));
        digits.iter().zip(shape).all(|(group, len)| group.len() == *len)
            && (dots == 0 || dots == shape.len() - 1)
            && is_whole
            && is_card(&digits.concat())
    };
    let is_one = groups.first().is_some_and(|first| is_card(first.digits) && ends(line, first.end));
    let is_number = is_one || SHAPES.iter().any(|shape| has_shape(shape));
    (is_number && !is_telephone(bytes, at)).then_some(SecretKind::PaymentCard)
}

/// How the digits of a card are written in groups.
const SHAPES: [&[usize]; 5] = [&[4, 4, 4, 4], &[4, 4, 4, 4, 3], &[4, 6, 5], &[4, 6, 4], &[4, 4, 4, 1]];

/// The groups of digits from `at` on, with one separator between two.
fn groups(line: &[u8], at: usize) -> Vec<Group<'_>> {
    let (mut groups, mut at, mut separator) = (Vec::new(), at, b' ');
    while groups.len() < MOST_GROUPS {
        let len = line[at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        let end = at + len;
        groups.push(Group { separator, digits: &line[at..end], end });
        match (line.get(end), line.get(end + 1)) {
            (Some(next @ (b' ' | b'-' | b'.')), Some(then)) if then.is_ascii_digit() => separator = *next,
            _ => break,
        }
        at = end + 1;
    }
    groups
}

/// Whether a number may end at `end`: no letter of it follows, and no decimals but a zero, which programs write behind
/// whole numbers.
fn ends(line: &str, end: usize) -> bool {
    let mut rest = line[end..].chars();
    match rest.next() {
        Some('.') => {
            let decimals: String = rest.take_while(char::is_ascii_digit).take(2).collect();
            decimals.is_empty() || decimals == "0"
        }
        Some(c) => !(c.is_alphanumeric() && u32::from(c) < UNSPACED),
        None => true,
    }
}

/// Whether the groups before `at` begin with a plus sign.
fn is_telephone(line: &[u8], at: usize) -> bool {
    let mut start = at;
    for _ in 0..MOST_GROUPS {
        let Some(before) = start.checked_sub(1).filter(|place| b" -".contains(&line[*place])) else { break };
        let digits = line[..before].iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
        if digits == 0 {
            break;
        }
        start = before - digits;
    }
    start.checked_sub(1).is_some_and(|place| line[place] == b'+')
}

/// Whether what is before `at` is no part of the number's own word, but for its name.
fn stands_alone(line: &[u8], at: usize) -> bool {
    match at.checked_sub(1).map(|place| line[place]) {
        Some(b'-' | b'_') => {
            let name = line.get(at.saturating_sub(4)..at - 1).unwrap_or_default();
            name.eq_ignore_ascii_case(b"ssn")
        }
        Some(_) | None => true,
    }
}

/// 13 to 19 digits that an issuer's range begins and whose last makes the sum of Luhn's algorithm (ISO/IEC 7812-1)
/// a multiple of ten. Thirteen digits that also check as an article number are taken for one.
fn is_card(digits: &[u8]) -> bool {
    (13..=19).contains(&digits.len())
        && is_issued(digits)
        && luhn(digits).is_multiple_of(10)
        && !(digits.len() == 13 && article(digits).is_multiple_of(10))
}

fn is_issued(digits: &[u8]) -> bool {
    let (len, start) =
        (digits.len(), |n: usize| digits[..n].iter().fold(0, |sum, d| 10 * sum + u32::from(d - b'0')));
    match (start(1), start(2), start(4)) {
        // Visa.
        (4, _, _) => matches!(len, 13 | 16 | 19),
        // Mastercard, and Mir within its second range.
        (_, 51..=55, _) | (_, _, 2200..=2204 | 2221..=2720) => len == 16,
        // American Express.
        (_, 34 | 37, _) => len == 15,
        // Diners Club.
        (_, 36 | 38 | 39, _) | (_, _, 3000..=3059 | 3095) => (14..=19).contains(&len),
        // JCB, Discover, UnionPay, Maestro.
        (_, 62 | 65, _)
        | (_, _, 3528..=3589 | 6011 | 6440..=6499 | 5018 | 5020 | 5038 | 5893 | 6304 | 6759 | 6761..=6763) => {
            len >= 16
        }
        _ => false,
    }
}

fn luhn(digits: &[u8]) -> u32 {
    let value = |(place, digit): (usize, &u8)| {
        let digit = u32::from(digit - b'0');
        if place % 2 == 0 { digit } else { 2 * digit / 10 + 2 * digit % 10 }
    };
    digits.iter().rev().enumerate().map(value).sum()
}

/// The sum of an international article number (EAN-13).
fn article(digits: &[u8]) -> u32 {
    let value = |(place, digit): (usize, &u8)| u32::from(digit - b'0') * if place % 2 == 0 { 1 } else { 3 };
    digits.iter().enumerate().map(value).sum()
}

/// `ddd-dd-dddd` of which no group is zero, and the first neither 666 nor above 899.
fn is_social_security([area, group, serial]: [&[u8]; 3]) -> bool {
    let lengths = (area.len(), group.len(), serial.len()) == (3, 2, 4);
    lengths && area != b"000" && area != b"666" && area[0] != b'9' && group != b"00" && serial != b"0000"
}

/// How long account numbers are in the countries of the registry of ISO 13616.
const COUNTRIES: &str = "AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BI27 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 DJ27 \
    DK18 DO28 EE20 EG29 ES24 FI18 FK18 FO18 FR27 GB22 GE22 GI23 GL18 GR27 GT28 HN28 HR21 HU28 IE22 IL23 IQ23 IS26 \
    IT27 JO30 KW30 KZ20 LB28 LC32 LI21 LT20 LU20 LV21 LY25 MC27 MD24 ME22 MK19 MN20 MR27 MT31 MU30 NI28 NL18 NO15 \
    OM23 PK24 PL28 PS29 PT25 QA29 RO24 RS22 RU33 SA24 SC31 SD18 SE24 SI19 SK24 SM27 SO23 ST25 SV28 TL23 TN24 TR26 \
    UA29 VA22 VG24 XK20 YE30";

/// Whether an account number stands here, in one piece or in groups of four, whose check digits (ISO 7064, modulo 97)
/// are right.
fn is_account(line: &[u8], at: usize) -> bool {
    let start = line.get(at..at + 4).unwrap_or_default();
    let [a, b, c, d] = start else { return false };
    if !(a.is_ascii_alphabetic() && b.is_ascii_alphabetic() && c.is_ascii_digit() && d.is_ascii_digit()) {
        return false;
    }
    let country = [a.to_ascii_uppercase(), b.to_ascii_uppercase()];
    let entry = COUNTRIES.split(' ').find(|entry| entry.as_bytes().starts_with(&country));
    let Some(len) = entry.and_then(|entry| entry[2..].parse::<usize>().ok()) else { return false };
    let mut number = Vec::with_capacity(len);
    let mut end = at;
    let separator = line.get(at + 4).copied().filter(|byte| b" -".contains(byte));
    while number.len() < len {
        match line.get(end) {
            Some(byte) if byte.is_ascii_alphanumeric() => number.push(byte.to_ascii_uppercase()),
            Some(byte)
                if Some(*byte) == separator && number.len().is_multiple_of(4) && line[end - 1] != *byte => {}
            Some(_) | None => return false,
        }
        end += 1;
    }
    if line.get(end).is_some_and(u8::is_ascii_alphanumeric) {
        return false;
    }
    number.rotate_left(4);
    let rest = number.iter().fold(0, |rest, byte| match byte {
        b'0'..=b'9' => (10 * rest + u32::from(byte - b'0')) % 97,
        _ => (100 * rest + u32::from(byte - b'A') + 10) % 97,
    });
    rest == 1
}
