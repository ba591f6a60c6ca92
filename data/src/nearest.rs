//! The name that was meant, perhaps.

/// `; the nearest is …`, or nothing if no name is near.
pub(crate) fn hint<'a>(wanted: &str, names: impl IntoIterator<Item = &'a str>) -> String {
    let rated = names.into_iter().map(|name| (strsim::jaro_winkler(wanted, name), name));
    let best = rated.max_by(|a, b| a.0.total_cmp(&b.0)).filter(|(similarity, _)| *similarity > 0.7);
    best.map_or_else(String::new, |(_, name)| format!("; the nearest is `{name}`"))
}
