//! Name patterns of frozen parameters, read like a `.gitignore`: the last one that matches decides.

use super::Role;
use crate::ModelError;
use crate::tensor::Tensor;

/// Checked patterns: each matches at least one parameter.
pub(super) struct Frozen<'p> {
    patterns: &'p [String],
}

impl<'p> Frozen<'p> {
    pub(super) fn new(patterns: &'p [String], found: &[(String, Role, Tensor)]) -> Result<Self, ModelError> {
        for pattern in patterns {
            let bare = pattern.strip_prefix('!').unwrap_or(pattern);
            if !found.iter().any(|(name, ..)| matches(bare, name)) {
                let nearest =
                    found.iter().max_by_key(|(name, ..)| common_prefix(bare, name)).map_or_else(String::new, |(name, ..)| name.clone());
                return Err(ModelError::Freeze { pattern: pattern.clone(), nearest });
            }
        }
        Ok(Self { patterns })
    }

    pub(super) fn holds(&self, name: &str) -> bool {
        let last = self.patterns.iter().rev().find(|pattern| matches(pattern.strip_prefix('!').unwrap_or(pattern), name));
        last.is_some_and(|pattern| !pattern.starts_with('!'))
    }
}

fn common_prefix(a: &str, b: &str) -> usize {
    a.chars().zip(b.chars()).take_while(|(x, y)| x == y).count()
}

/// Whether `name` matches `pattern`, where `*` stands for any run of characters.
pub(crate) fn matches(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = name.strip_prefix(first) else { return false };
    let Some(last) = parts.next_back() else { return rest.is_empty() };
    // Leftmost matches of the middle parts leave the most for the last one.
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Tensor;

    #[test]
    fn star_stands_for_any_run() {
        for (pattern, name) in
            [("fc1.weight", "fc1.weight"), ("fc1.*", "fc1.weight"), ("*", ""), ("*.bias", "a.b.bias"), ("a*b*c", "a-b-b-c"), ("**x", "x")]
        {
            assert!(matches(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [("fc1", "fc1.weight"), ("fc1.*", "fc2.weight"), ("*.bias", "a.bias.x"), ("a*a", "a"), ("", "x")] {
            assert!(!matches(pattern, name), "{pattern} {name}");
        }
    }

    #[test]
    fn the_last_pattern_that_matches_decides() {
        let found = ["conv.weight", "conv.bias", "fc.weight", "fc.bias"].map(|name| (name.to_owned(), Role::Weight, Tensor::scalar(0.0)));
        let held = |patterns: &[&str]| {
            let patterns: Vec<String> = patterns.iter().map(|p| (*p).to_owned()).collect();
            let frozen = Frozen::new(&patterns, &found).unwrap();
            found.iter().map(|(name, ..)| name.as_str()).filter(|name| frozen.holds(name)).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(held(&["*", "!fc.*"]), "conv.weight conv.bias");
        assert_eq!(held(&["*", "!fc.*", "*.bias"]), "conv.weight conv.bias fc.bias");
        assert_eq!(held(&["!fc.*"]), "");
        let typo = ["*".to_owned(), "!head.*".to_owned()];
        assert!(matches!(Frozen::new(&typo, &found), Err(ModelError::Freeze { pattern, .. }) if pattern == "!head.*"));
    }
}
