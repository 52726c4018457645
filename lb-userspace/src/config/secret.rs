//! What no message shows: the values of keys that hold passwords.

/// What stands in the place of a secret.
pub(super) const HIDDEN: &str = "***";

/// The keys that hold secrets, and the tables around some of them, which are shown nowhere when they are no tables. Others
/// are guessed from their names: unknown keys, headers, broken lines.
const KEYS: [&str; 5] = ["password", "key", "keys", "authentication", "headers"];

/// Parts of the names of keys and headers that hold secrets.
const WORDS: [&str; 7] = ["pass", "auth", "key", "secret", "token", "cookie", "header"];

/// Keys that sound like it.
const OTHERS: [&str; 2] = ["password_file", "key_id"];

/// Whether this key of the reference holds a secret.
pub(super) fn is_key(key: &str) -> bool {
    KEYS.contains(&key)
}

/// Whether the table at `path` is there for secrets: whatever it holds under a name that is not known may be one.
pub(super) fn is_vault(path: &str) -> bool {
    path.ends_with(".authentication")
}

/// Whether the value of `key` is a secret. Mistyped keys count too: their values are shown when they are refused.
pub(super) fn is_secret(key: &str) -> bool {
    if OTHERS.contains(&key) {
        return false;
    }
    // Longer than any key by far; the comparison below would cost.
    if key.len() > 64 {
        return true;
    }
    let key = key.to_ascii_lowercase();
    WORDS.iter().any(|word| key.contains(word))
        || strsim::damerau_levenshtein(&key, "password") <= 3
        || strsim::damerau_levenshtein(&key, "key") <= 1
        || strsim::damerau_levenshtein(&key, "headers") <= 2
}

/// Whether a line that could not be read may hold a secret.
pub(super) fn is_secret_line(line: &str) -> bool {
    let mut words =
        line.split(|letter: char| !letter.is_ascii_alphanumeric() && !matches!(letter, '_' | '-'));
    words.any(|word| !word.is_empty() && is_secret(word))
}

/// Hides what follows an assignment to a secret inside of a longer value, such as an inline table.
pub(super) fn hide(shown: String) -> String {
    let Some(equals) = shown.match_indices('=').map(|(at, _)| at).find(|at| {
        let key = shown[..*at].trim_end().trim_end_matches(['"', '\'']);
        let begin = key.rfind(|letter: char| !letter.is_ascii_alphanumeric() && !matches!(letter, '_' | '-'));
        is_secret(
            &key[begin.map_or(0, |begin| begin + key[begin..].chars().next().map_or(1, char::len_utf8))..],
        )
    }) else {
        return shown;
    };
    format!("{} {HIDDEN}", &shown[..=equals])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_of_the_pen_are_secret_too() {
        for key in
            ["password", "Password", "pasword", "passwort", "pass_word", "passwd", "smtp_password", "Cookie"]
        {
            assert!(is_secret(key), "{key}");
        }
        for key in ["key", "keys", "Key", "kye", "ky", "hmac_key", "api-key", "auth_pass", "authentification"]
        {
            assert!(is_secret(key), "{key}");
        }
        for key in ["headers", "header", "Headers", "haeders", "headres", "http_headers"] {
            assert!(is_secret(key), "{key}");
        }
        for key in [
            "password_file",
            "path",
            "paths",
            "payload",
            "port",
            "user",
            "router_id",
            "to",
            "host",
            "server",
            "helo",
            "requests",
            "address",
            "key_id",
            "type",
            "mode",
            "name",
            "weight",
            "state",
            "via",
            "vmac",
            "version",
            "priority",
        ] {
            assert!(!is_secret(key), "{key}");
        }
    }

    #[test]
    fn assignments_inside_of_values_are_hidden() {
        let hidden = |text: &str| hide(text.to_owned());
        assert_eq!(hidden("[1, { password = \"x\" }]"), "[1, { password = ***");
        assert_eq!(hidden("[1, { é\"password\"=\"x\" }]"), "[1, { é\"password\"= ***");
        assert_eq!(hidden("\"/var/lib/password-store\""), "\"/var/lib/password-store\"");
        assert_eq!(hidden("\"/?a=1\""), "\"/?a=1\"");
        assert_eq!(hidden("[{ headers = [\"Authorization: x\"] }]"), "[{ headers = ***");
        assert_eq!(hidden("[{ id = 1, key = \"x\" }, 2]"), "[{ id = 1, key = ***");
    }
}
