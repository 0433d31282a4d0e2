use proptest::prelude::*;

use super::*;

/// A token whose body is drawn, so that no line of this file looks like a real one.
fn drawn(prefix: &str, alphabet: &str, len: usize) -> String {
    let letters = alphabet.as_bytes();
    let body = (0..len).map(|i| char::from(letters[(i * i * 7 + i * 13 + 5) % letters.len()]));
    prefix.chars().chain(body).collect()
}

const BASE62: &str = "Q7fK2mZ9xT4cR8vB1nL6wD3sG5hJ0pYkaqetuXoWzEiUyMbNrCdFgHjPlSvA";
const HEX: &str = "0f1e2d3c4b5a69788796a5b4c3d2e1f0";

fn kind(line: &str) -> Option<SecretKind> {
    find(line)
}

#[test]
fn tokens_are_known_by_how_they_begin() {
    let upper = "Q7FK2MZ4XT5CR6VB3NL";
    for token in [
        drawn("AKIA", upper, 16),
        drawn("ASIA", upper, 16),
        drawn("ghp_", BASE62, 36),
        drawn("ghs_", BASE62, 36),
        drawn("github_pat_", BASE62, 82),
        drawn("glpat-", BASE62, 20),
        drawn("xoxb-", BASE62, 40),
        drawn("AIza", BASE62, 35),
        drawn("GOCSPX-", BASE62, 28),
        drawn("sk-", BASE62, 48),
        drawn("sk-ant-api03-", BASE62, 90),
        drawn("sk-proj-", BASE62, 60),
        drawn("hf_", BASE62, 34),
        drawn("npm_", BASE62, 36),
        drawn("pypi-AgEIcHlwaS5vcmc", BASE62, 120),
        drawn("sk_live_", BASE62, 24),
        drawn("rk_test_", BASE62, 24),
        drawn("whsec_", BASE62, 32),
        drawn("dop_v1_", HEX, 64),
        drawn("shpat_", HEX, 32),
        drawn("ya29.", BASE62, 60),
        drawn("hvs.", BASE62, 30),
        drawn("123456789:", BASE62, 35),
        format!("{}.{}", drawn("SG.", BASE62, 22), drawn("", BASE62, 43)),
        format!("{}.{}.{}", drawn("eyJ", BASE62, 20), drawn("eyJ", BASE62, 30), drawn("", BASE62, 43)),
    ] {
        for line in [token.clone(), format!("see {token}, thanks"), format!("url=\"https://x/?k={token}\"")] {
            assert_eq!(kind(&line), Some(SecretKind::AccessToken), "{line}");
        }
        let start = &token[..12];
        assert_eq!(kind(start), None, "{start}");
        assert_eq!(kind(&format!("x{token}")), None, "{token}");
    }
    assert_eq!(kind(&drawn("AGE-SECRET-KEY-1", upper, 58)), Some(SecretKind::PrivateKey));
}

#[test]
fn a_password_is_known_by_its_name_and_that_it_is_drawn() {
    for line in [
        "password: hunter2!",
        "DB_PASSWORD=tr0ub4dor",
        "\"passwd\": \"q1w2e3r4\",",
        "Passwort = \"Xy7-kk3\"",
        "My password: s3cr3tSauce",
        "api_key = '7f3d9a1c5b2e8d4f'",
        "API key: 7f3d9a1c5b2e8d4f",
        "client_secret: Zx81-Qp42-Mn63",
        "aws_secret_access_key = wJa1rXUt2FEMI/K7MDENG/bPx9RfiCY3zzz4KEYA",
        "Authorization: Bearer 4f9d8c7b6a5e4d3c2b1a",
        "postgres://anna:p4ssw0rt@db.example.org/app",
        "AccountKey=q7fK2mZ9xT4cR8vB1nL6wD3sG5hJ0pYkaqetuXoWzEiUyMbNrCdFgHjPlSvA==;",
    ] {
        assert_eq!(kind(line), Some(SecretKind::Password), "{line}");
    }
    for line in [
        "password: forgotten",
        "Password: ",
        "password = os.environ[\"DB_PASSWORD_1\"]",
        "password: ${DB_PASSWORD1}",
        "password=<your-password-1>",
        "token = tokenizer.encode(text2)",
        "max_tokens: 4096",
        "secret_name: my-app-2023-prod-x7",
        "The secret: patience, and 3 eggs",
        "tokens: 8f3b9f0a1b2c3d4e",
        "https://example.org/a:b@c",
        "ssh://git@example.org/x",
        "postgres://user:password@localhost/app",
    ] {
        assert_eq!(kind(line), None, "{line}");
    }
}

#[test]
fn cards_are_known_by_issuer_and_check_digit() {
    // The numbers that payment providers publish for trying things out.
    for number in [
        "4111111111111111",
        "4111 1111 1111 1111",
        "4111-1111-1111-1111",
        "5555555555554444",
        "2223003122003222",
        "378282246310005",
        "3782 822463 10005",
        "6011111111111117",
        "30569309025904",
        "3566002020360505",
        "6200000000000005",
        "4222222222222",
    ] {
        for line in [
            number.to_owned(),
            format!("card {number}, 12/27"),
            format!("({number})."),
            format!("Karte:{number} 12/27"),
            format!("2 x {number} 27"),
        ] {
            assert_eq!(kind(&line), Some(SecretKind::PaymentCard), "{line}");
        }
        let mut wrong = number.to_owned();
        let last = wrong.pop().unwrap();
        wrong.push(if last == '9' { '0' } else { char::from(last as u8 + 1) });
        assert_eq!(kind(&wrong), None, "{wrong}");
        assert_eq!(kind(&format!("0.{number}")), None);
        assert_eq!(kind(&format!("a{number}")), None);
        assert_eq!(kind(&format!("{number}b")), None);
    }
}

#[test]
fn accounts_are_known_by_country_length_and_check_digits() {
    // The examples of the registry of ISO 13616.
    for number in [
        "DE89370400440532013000",
        "DE89 3704 0044 0532 0130 00",
        "GB29 NWBK 6016 1331 9268 19",
        "GB29NWBK60161331926819",
        "FR1420041010050500013M02606",
        "NO93 8601 1117 947",
        "MT84MALT011000012345MTLCAST001S",
        "de89370400440532013000",
    ] {
        for line in [number.to_owned(), format!("IBAN: {number}, BIC x"), format!("to {number} please")] {
            assert_eq!(kind(&line), Some(SecretKind::BankAccount), "{line}");
        }
        let place = number.rfind(|c: char| c.is_ascii_digit()).unwrap();
        let other = if &number[place..=place] == "0" { "1" } else { "0" };
        let wrong = format!("{}{other}{}", &number[..place], &number[place + 1..]);
        assert_eq!(kind(&wrong), None, "{wrong}");
        assert_eq!(kind(&format!("{number}7")), None);
    }
}

#[test]
fn social_security_numbers_have_their_groups() {
    assert_eq!(kind("SSN 219-09-9999."), Some(SecretKind::SocialSecurity));
    for line in [
        "000-12-3456",
        "666-12-3456",
        "900-12-3456",
        "219-00-9999",
        "219-09-0000",
        "219-09-99999",
        "1219-09-9999",
        "219-09-9999-1",
        "x219-09-9999",
    ] {
        assert_eq!(kind(line), None, "{line}");
    }
}

#[test]
fn numbers_and_names_of_everyday_life_stay() {
    for line in [
        "Call +49 30 1234 5678 or (030) 123-4567 or 212-555-0187 or +1 212 555 0187",
        "+44 4111 1111 1111 1111",
        "order 4111111111111112, parcel 00340434161094022115, invoice 2024-11-21/0042",
        "commit 8f3b9f0a1b2c3d4e5f60718293a4b5c6d7e8f901",
        "sha256 e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "be68 is no account, nor is de305d54-75b4-431b-adb2-eb6b9e546014",
        "7d444840-9dc0-11d1-b245-5ffdce74fad2",
        "44444444-4444-4444-4444-444444444444",
        "timestamps 1700000000000 and 1732147200123456789",
        "ISBN 978-3-16-148410-0, EAN 4006381333931",
        "pi is 3.14159265358979323846, and 0.4111111111111111",
        "sk-learn-like-naming-of-some-long-package-name",
        "a task-oriented, risk-1234567890-averse, AKIA-like name; hf_hub_download_and_more_words_here",
        "eyJ is how base64 of a brace and a quote begins",
        "-----BEGIN CERTIFICATE-----",
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl anna@host",
        "10.0.0.1:8080, 2001:db8::ff00:42:8329, 12:34:56",
        "https://example.org/watch?v=dQw4w9WgXcQ&list=PL0123456789",
        "GPS 52.5200066, 13.404954",
        "Ω≈ç√∫ 4² = 16 — „Zitat“ 你好",
    ] {
        assert_eq!(kind(line), None, "{line}");
    }
}

#[test]
fn a_private_key_is_left_out_to_its_end_and_what_only_speaks_of_one_is_not() {
    let body = "MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQ";
    let lines = [
        "before",
        "-----BEGIN RSA PRIVATE KEY-----",
        "Proc-Type: 4,ENCRYPTED",
        "",
        body,
        "  \"QwErTy==\\n\"",
        "-----END RSA PRIVATE KEY-----",
        "word",
        "put -----BEGIN OPENSSH PRIVATE KEY----- at the top",
        "and two words",
        "word",
        "key: \"-----BEGIN PRIVATE KEY-----\\nMII\\n-----END PRIVATE KEY-----\"",
        "word",
        "-----BEGIN PUBLIC KEY-----",
        body,
    ];
    let mut scanner = Scanner::default();
    let found: Vec<char> = lines
        .iter()
        .map(|line| match scanner.look(line) {
            Verdict::Clean => '.',
            Verdict::Secret(SecretKind::PrivateKey) => 'K',
            Verdict::Secret(_) => '?',
            Verdict::Same => '-',
        })
        .collect();
    assert_eq!(found.iter().collect::<String>(), ".K-----.K..K...");
}

#[test]
fn the_check_of_a_card_is_luhn_s_and_that_of_an_account_is_97() {
    // Exactly one last digit fits, whatever stands before it.
    for start in ["411111111111111", "555500001234567", "601198765432100"] {
        let fits = (0..10).filter(|digit| kind(&format!("{start}{digit}")).is_some()).count();
        assert_eq!(fits, 1, "{start}");
    }
    let fits = (0..97).filter(|check| kind(&format!("DE{check:02}370400440532013000")).is_some()).count();
    assert_eq!(fits, 1);
}

proptest! {
    #[test]
    fn no_line_makes_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), glue in "[-.:=/@ 0-9A-Ze]{0,80}") {
        let text = String::from_utf8_lossy(&bytes);
        find(&text);
        find(&format!("{glue}{text}{glue}"));
        find(&glue);
    }

    #[test]
    fn words_stay(text in "[a-zäöü]{1,12}([ ,.][a-zäöü]{1,12}){0,30}") {
        prop_assert_eq!(find(&text), None);
    }
}

#[test]
fn a_number_is_found_whatever_stands_around_it() {
    let card = "4111 1111 1111 1111";
    for line in [
        format!("box1 {card}"),
        "card1 4111-1111-1111-1111".to_owned(),
        format!("2024-11-21 {card}"),
        format!("12-3 {card}"),
        format!("0.5 {card} and more"),
        format!("10/24 {card}"),
        format!("#{card}"),
        format!("No.{card}"),
        format!("...{card}"),
        format!("Visa-{card}"),
        "card_4111111111111111".to_owned(),
        "card_4111111111111111_back.jpg".to_owned(),
        "Anna,4111111111111111,123".to_owned(),
        format!("{card}/12/27"),
        "4111111111111111.0,5".to_owned(),
        "4111.1111.1111.1111".to_owned(),
        "4111 1111-1111 1111".to_owned(),
        "\u{5361}\u{53f7}4111111111111111\u{5143}".to_owned(),
        "4111\u{a0}1111\u{202f}1111\u{2009}1111".to_owned(),
        "4111\u{2011}1111\u{2013}1111\u{2212}1111".to_owned(),
        "4111\t1111\t1111\t1111".to_owned(),
        "4111\u{200b}1111\u{ad}11111111".to_owned(),
        "\u{ff14}\u{ff11}\u{ff11}\u{ff11} 1111 1111 1111".to_owned(),
        "\u{664}\u{661}\u{661}\u{661}\u{661}\u{661}\u{661}\u{661}\u{661}\u{661}\u{661}\u{661}\u{661}\u{661}\u{661}\u{661}".to_owned(),
    ] {
        assert_eq!(kind(&line), Some(SecretKind::PaymentCard), "{line}");
    }
    for line in [
        "IBAN_DE89370400440532013000",
        "iban-DE89370400440532013000.",
        "IBANDE89370400440532013000",
        "DE89-3704-0044-0532-0130-00",
        "DE89\u{a0}3704\u{a0}0044\u{a0}0532\u{a0}0130\u{a0}00",
        "x1 DE89 3704 0044 0532 0130 00",
    ] {
        assert_eq!(kind(line), Some(SecretKind::BankAccount), "{line}");
    }
    for line in [
        "SSN-219-09-9999",
        "box1 219-09-9999",
        "ssn_219-09-9999",
        "219\u{2011}09\u{2011}9999",
        "(219-09-9999)",
    ] {
        assert_eq!(kind(line), Some(SecretKind::SocialSecurity), "{line}");
    }
    let token = drawn("ghp_", BASE62, 36);
    for line in [format!("token_{token}"), format!("my-{token}")] {
        assert_eq!(kind(&line), Some(SecretKind::AccessToken), "{line}");
    }
}

#[test]
fn ordinary_numbers_stay_whatever_stands_around_them() {
    for line in [
        "+1 4111 1111 1111 1111",
        "+49-4111-1111-1111-1111",
        "part P-123-45-6789, 2024-219-09-9999",
        "0.4111111111111111 and 3.4111 1111 1111 1112",
        "4111111111111111.25 and 4111111111111111e3",
        "id_4111111111111112, msg-1234567890123456789",
        "de305d54-75b4-431b-adb2-eb6b9e546014 44444444-4444-4444-4444-444444444444",
        "1.2.3.4111 192.168.1.1 2001.2002.2003.2004",
        "2019 2020 2021 2022 2023 2024 2025 2026",
        "\u{664}\u{661}\u{661} and \u{ff11}\u{ff12}\u{ff13}",
        "x\u{e9}4111111111111111b",
        "https://example.org/4111111111111111/a",
    ] {
        assert_eq!(kind(line), None, "{line}");
    }
}
