//! How identifiers, options and configuration are spelled, and what words they have: as in the US, and as in the
//! field. Prose may be British.

use std::collections::BTreeMap;
use std::fs;

use super::files::{root, sources};
use super::packages::members;
use super::tokens::{Kind, Token, tokens};

/// British beginnings and how a name has them.
const SPELLED: &[(&str, &str)] = &[
    ("acknowledgement", "acknowledgment"),
    ("analogue", "analog"),
    ("analyse", "analyze"),
    ("artefact", "artifact"),
    ("behaviour", "behavior"),
    ("cancelled", "canceled"),
    ("cancelling", "canceling"),
    ("catalogue", "catalog"),
    ("centre", "center"),
    ("channelled", "channeled"),
    ("colour", "color"),
    ("defence", "defense"),
    ("enrolment", "enrollment"),
    ("favour", "favor"),
    ("flavour", "flavor"),
    ("fulfilment", "fulfillment"),
    ("grey", "gray"),
    ("honour", "honor"),
    ("judgement", "judgment"),
    ("labelled", "labeled"),
    ("labelling", "labeling"),
    ("labour", "labor"),
    ("learnt", "learned"),
    ("levelled", "leveled"),
    ("licence", "license"),
    ("marshalled", "marshaled"),
    ("marshalling", "marshaling"),
    ("modelled", "modeled"),
    ("modelling", "modeling"),
    ("neighbour", "neighbor"),
    ("offence", "offense"),
    ("sceptic", "skeptic"),
    ("signalled", "signaled"),
    ("signalling", "signaling"),
    ("totalled", "totaled"),
    ("travelled", "traveled"),
    ("tunnelled", "tunneled"),
    ("whilst", "while"),
];

/// Verbs that end in `ize`, without it.
const VERBS: &[&str] = &[
    "author",
    "capital",
    "categor",
    "character",
    "custom",
    "emphas",
    "equal",
    "factor",
    "final",
    "formal",
    "general",
    "harmon",
    "initial",
    "item",
    "linear",
    "local",
    "material",
    "maxim",
    "memor",
    "minim",
    "modern",
    "normal",
    "optim",
    "organ",
    "parallel",
    "parametr",
    "penal",
    "personal",
    "polar",
    "priorit",
    "quant",
    "random",
    "real",
    "recogn",
    "regular",
    "sanit",
    "serial",
    "special",
    "stabil",
    "standard",
    "summar",
    "symbol",
    "synchron",
    "synthes",
    "token",
    "util",
    "vector",
    "visual",
];
const ENDINGS: &[&str] = &["ise", "ising", "isation", "isable"];

/// Names that others gave.
const OTHERS: &[&str] = &["cancelled", "cancelled_owned", "is_cancelled", "run_until_cancelled"];

/// Names that only we had, and the field's, for the engine: there a reader searches for the field's.
const DIALECT: &[(&str, &str)] = &[
    ("Arithmetic", "Precision"),
    ("Change", "LoraDelta"),
    ("Changes", "LoraDeltas"),
    ("Extra", "FoldedDelta"),
    ("Extras", "FoldedDeltas"),
    ("Halves", "SavedI16"),
    ("Hold", "WeightDtype"),
    ("Keep", "ActivationPrecision"),
    ("Keeping", "SavedBlock"),
    ("Made", "LazyRows"),
    ("MemoryError", "DeviceStoreError"),
    ("OWN", "a named tile size"),
    ("Pair", "LowRank"),
    ("Passes", "Executor"),
    ("Past", "LayerKv"),
    ("Place", "Backend"),
    ("PlaceChoice", "DeviceRequest"),
    ("Places", "AdapterLayout"),
    ("Stored", "Saved"),
    ("TOGETHER", "a named tile size"),
    ("There", "InMemory"),
    ("ToNothing", "Accumulate::Overwrite"),
    ("ToWhatIsThere", "Accumulate::Add"),
    ("Turn", "BlockPosition"),
    ("Wanted", "GradientTarget"),
    ("Which", "LogitsFor"),
    ("block_back", "block_backward"),
    ("block_until_inner", "forward"),
    ("halves_back", "backward"),
    ("some_back", "backward"),
    ("way_back", "backward"),
    ("way_there", "forward"),
];

/// What a name should have, where it has something British.
fn british(name: &str) -> Option<String> {
    if OTHERS.contains(&name) {
        return None;
    }
    let name = name.to_lowercase();
    let spelled = SPELLED.iter().find(|(british, _)| name.contains(british));
    let verb = || {
        let mut forms = VERBS.iter().flat_map(|verb| ENDINGS.iter().map(move |ending| (verb, ending)));
        let (verb, ending) = forms.find(|(verb, ending)| name.contains(&format!("{verb}{ending}")))?;
        Some(format!("{verb}{}", ending.replacen('s', "z", 1)))
    };
    spelled.map(|(_, american)| (*american).to_owned()).or_else(verb)
}

/// Names in the code: words, and strings that name an option, a key or a type.
fn names(tokens: &[Token]) -> Vec<&Token> {
    let mut names: Vec<&Token> = tokens.iter().filter(|token| token.kind == Kind::Word).collect();
    for (at, token) in tokens.iter().enumerate().filter(|(_, token)| token.kind == Kind::Text) {
        let before = |back: usize| at.checked_sub(back).map_or("", |index| tokens[index].text.as_str());
        let given = before(1) == "="
            && ["id", "long", "name", "rename", "rename_all", "tag", "value_name"].contains(&before(2));
        let shown = before(1) == "(" && ["debug_struct", "debug_tuple", "field"].contains(&before(2));
        if given || shown {
            names.push(token);
        }
    }
    names
}

/// The keys and tables of a TOML file; what is commented out is prose.
fn keys(text: &str) -> Vec<(usize, &str)> {
    let lines = (1..).zip(text.lines()).filter(|(_, line)| !line.trim_start().starts_with('#'));
    let key = |(number, line): (usize, &'_ str)| match line.trim().strip_prefix('[') {
        Some(_) => Some((number, line.len())),
        None => line.find('=').map(|end| (number, end)),
    };
    lines
        .filter_map(|(number, line)| key((number, line)).map(|(number, end)| (number, &line[..end])))
        .collect()
}

/// Every Rust file of ours by its path from the root.
fn all_sources() -> Vec<(String, String)> {
    let members = members().iter().map(|member| &member.folder);
    let parts = members
        .flat_map(|folder| ["src", "tests", "benches", "examples"].map(|part| format!("{folder}/{part}")));
    let folders = parts.chain(["fuzz/fuzz_targets".to_owned()]);
    folders
        .flat_map(|folder| {
            sources(&folder).into_iter().map(move |(name, text)| (format!("{folder}/{name}"), text))
        })
        .collect()
}

#[test]
fn names_in_the_code_are_spelled_as_in_the_us() {
    let mut places: BTreeMap<String, String> = BTreeMap::new();
    for (path, text) in all_sources() {
        for name in names(&tokens(&text)) {
            places.entry(name.text.clone()).or_insert_with(|| format!("{path}:{}", name.line));
        }
    }
    let wrong = places.iter().filter_map(|(name, place)| Some((place, name, british(name)?)));
    let wrong: Vec<_> =
        wrong.map(|(place, name, american)| format!("{place}: `{name}` has {american}")).collect();
    assert!(wrong.is_empty(), "names are spelled as in the US:\n{}", wrong.join("\n"));
}

#[test]
fn keys_of_configuration_are_spelled_as_in_the_us() {
    let mut wrong = Vec::new();
    let mut read = 0;
    for entry in fs::read_dir(root().join("deploy")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        read += 1;
        for (line, key) in keys(&fs::read_to_string(&path).unwrap()) {
            if let Some(american) = british(key) {
                let name = path.file_name().unwrap().to_string_lossy();
                wrong.push(format!("deploy/{name}:{line}: `{}` has {american}", key.trim()));
            }
        }
    }
    assert!(read > 0, "deploy has no configuration: where is it?");
    assert!(wrong.is_empty(), "keys are spelled as in the US:\n{}", wrong.join("\n"));
}

#[test]
fn the_engine_speaks_the_words_of_its_field() {
    let mut wrong = Vec::new();
    for (name, text) in sources("client/engine/src") {
        for token in tokens(&text).iter().filter(|token| token.kind == Kind::Word) {
            if let Some((_, field)) = DIALECT.iter().find(|(own, _)| *own == token.text) {
                wrong.push(format!(
                    "client/engine/src/{name}:{}: `{}` is called {field}",
                    token.line, token.text
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "a person of the field searches for other words:\n{}", wrong.join("\n"));
}

#[test]
fn what_is_british_is_told_from_what_looks_like_it() {
    for (name, american) in [
        ("EnrolmentKey", "enrollment"),
        ("ARTEFACT_CACHE", "artifact"),
        ("visualised", "visualize"),
        ("is_initialised", "initialize"),
        ("Serialiser", "serialize"),
        ("quantising", "quantizing"),
        ("run_normalisation", "normalization"),
        ("cancelled_rounds", "canceled"),
    ] {
        assert_eq!(british(name).as_deref(), Some(american), "{name}");
    }
    for name in [
        "advertise",
        "precise",
        "noise",
        "otherwise",
        "optimistic",
        "specialist",
        "emphasis",
        "enrollment",
        "colors",
        "serialize",
        "CancellationToken",
        "is_cancelled",
        "cancellation",
        "hours",
        "source",
        "centered",
        "raise",
    ] {
        assert_eq!(british(name), None, "{name}");
    }
}

#[test]
fn names_are_words_options_keys_and_types_and_no_prose() {
    let text = r#"
        /// colour
        #[arg(long = "colour-map", help = "the colour")] // colour
        #[serde(rename = "colours", alias = "colour")]
        fn a() { f.debug_struct("Colour"); print("colour"); colour_of('c'); }
    "#;
    let tokens = tokens(text);
    let found = names(&tokens).into_iter().filter(|name| british(&name.text).is_some());
    assert_eq!(
        found.map(|name| name.text.as_str()).collect::<Vec<_>>(),
        ["colour_of", "colour-map", "colours", "Colour"]
    );
    assert_eq!(keys("# colour = 1\n[a]\nb = \"colour\"\n c.d= 2\n"), [(2, "[a]"), (3, "b "), (4, " c.d")]);
}
