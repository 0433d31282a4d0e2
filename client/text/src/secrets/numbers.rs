//! Numbers with a shape and a check: payment cards, bank accounts, social security.

use super::SecretKind;

/// The digits of the shortest number.
const FEWEST: usize = 9;

/// Whether the word of `len` bytes at `at` begins a number that is a secret.
pub(super) fn at(line: &[u8], at: usize, len: usize) -> Option<SecretKind> {
    let word = &line[at..at + len];
    let before = at.checked_sub(1).and_then(|before| line.get(before)).copied();
    if word.first().is_some_and(u8::is_ascii_digit) {
        return number(line, at, before, word);
    }
    is_account(line, at, len).then_some(SecretKind::BankAccount)
}

fn number(line: &[u8], at: usize, before: Option<u8>, word: &[u8]) -> Option<SecretKind> {
    // A decimal, a path, a telephone number; and a group within a number, which was looked at from its start.
    if before.is_some_and(|byte| b".+/#%".contains(&byte)) || is_later_group(line, at) {
        return None;
    }
    let may_follow = |byte: &&u8| byte.is_ascii_digit() || **byte == b' ' || **byte == b'-';
    if line[at..].iter().take(FEWEST).take_while(may_follow).count() < FEWEST {
        return None;
    }
    let spaced = word.iter().all(u8::is_ascii_digit);
    let (groups, end) = groups(&line[at..], if spaced { b' ' } else { b'-' })?;
    let next = line.get(at + end).copied();
    let then = line.get(at + end + 1).copied();
    let goes_on = next.is_some_and(|byte| crate::secrets::is_word(byte) || byte >= 0x80)
        || (next.is_some_and(|byte| b".,/".contains(&byte))
            && then.is_some_and(|byte| byte.is_ascii_digit()));
    // What a letter follows at once is part of something else, but only the last group of it.
    let groups =
        if goes_on { groups.split_last().map_or(&[][..], |(_, others)| others) } else { &groups[..] };
    if !spaced && is_social_security(groups) && !goes_on {
        return Some(SecretKind::SocialSecurity);
    }
    let card = (0..groups.len()).any(|first| {
        let part = &groups[first..];
        is_card(part[0]) || SHAPES.iter().any(|shape| has_shape(part, shape))
    });
    card.then_some(SecretKind::PaymentCard)
}

/// How the digits of a card are written in groups.
const SHAPES: [&[usize]; 5] = [&[4, 4, 4, 4], &[4, 4, 4, 4, 3], &[4, 6, 5], &[4, 6, 4], &[4, 4, 4, 1]];

fn has_shape(groups: &[&[u8]], shape: &[usize]) -> bool {
    let Some(groups) = groups.get(..shape.len()) else { return false };
    groups.iter().zip(shape).all(|(group, len)| group.len() == *len) && is_card(&groups.concat())
}

/// Whether the digits at `at` stand behind another group of digits and a space.
fn is_later_group(line: &[u8], at: usize) -> bool {
    at >= 2 && line[at - 1] == b' ' && line[at - 2].is_ascii_digit()
}

/// The groups of digits at the start, with one separator between two, and where they end; `None` where there are too
/// few digits for anything.
fn groups(text: &[u8], separator: u8) -> Option<(Vec<&[u8]>, usize)> {
    let (mut groups, mut at, mut digits) = (Vec::new(), 0, 0);
    loop {
        let len = text[at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        groups.push(&text[at..at + len]);
        digits += len;
        at += len;
        let more = text.get(at) == Some(&separator) && text.get(at + 1).is_some_and(u8::is_ascii_digit);
        if !more {
            return (digits >= FEWEST).then_some((groups, at));
        }
        at += 1;
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
fn is_social_security(groups: &[&[u8]]) -> bool {
    let [area, group, serial] = groups else { return false };
    let lengths = (area.len(), group.len(), serial.len()) == (3, 2, 4);
    lengths && *area != b"000" && *area != b"666" && area[0] != b'9' && *group != b"00" && *serial != b"0000"
}

/// How long account numbers are in the countries of the registry of ISO 13616.
const COUNTRIES: &str = "AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BI27 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 DJ27 \
    DK18 DO28 EE20 EG29 ES24 FI18 FK18 FO18 FR27 GB22 GE22 GI23 GL18 GR27 GT28 HN28 HR21 HU28 IE22 IL23 IQ23 IS26 \
    IT27 JO30 KW30 KZ20 LB28 LC32 LI21 LT20 LU20 LV21 LY25 MC27 MD24 ME22 MK19 MN20 MR27 MT31 MU30 NI28 NL18 NO15 \
    OM23 PK24 PL28 PS29 PT25 QA29 RO24 RS22 RU33 SA24 SC31 SD18 SE24 SI19 SK24 SM27 SO23 ST25 SV28 TL23 TN24 TR26 \
    UA29 VA22 VG24 XK20 YE30";

/// Whether an account number stands here, in one piece or in groups of four, whose check digits (ISO 7064, modulo 97)
/// are right.
fn is_account(line: &[u8], at: usize, word: usize) -> bool {
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
    while number.len() < len {
        match line.get(end) {
            Some(byte) if byte.is_ascii_alphanumeric() => number.push(byte.to_ascii_uppercase()),
            Some(b' ') if word == 4 && number.len().is_multiple_of(4) && line[end - 1] != b' ' => {}
            Some(_) | None => return false,
        }
        end += 1;
    }
    if line.get(end).is_some_and(|byte| crate::secrets::is_word(*byte)) {
        return false;
    }
    number.rotate_left(4);
    let rest = number.iter().fold(0, |rest, byte| match byte {
        b'0'..=b'9' => (10 * rest + u32::from(byte - b'0')) % 97,
        _ => (100 * rest + u32::from(byte - b'A') + 10) % 97,
    });
    rest == 1
}
