//! Colours, and text that fits its place.

use ratatui::style::{Color, Modifier, Style};

use crate::api::types::RealServerState;

/// Colours, which only repeat what a word says.
#[derive(Debug, Clone, Copy)]
pub struct Theme {
    /// Whether there are any.
    pub has_colour: bool,
}

impl Theme {
    /// Of this colour, or as any text.
    pub fn coloured(self, colour: Color) -> Style {
        if self.has_colour { Style::new().fg(colour) } else { Style::new() }
    }

    /// As it should be.
    pub fn good(self) -> Style {
        self.coloured(Color::Green)
    }

    /// Needs a person.
    pub fn bad(self) -> Style {
        self.coloured(Color::Red).add_modifier(Modifier::BOLD)
    }

    /// Not in the way.
    pub fn quiet(self) -> Style {
        Style::new().add_modifier(Modifier::DIM)
    }

    /// A real server's state.
    pub fn state(self, state: RealServerState) -> Style {
        match state {
            RealServerState::Up => self.good(),
            RealServerState::Down | RealServerState::NoRoute | RealServerState::NoNeighbour => self.bad(),
            RealServerState::Inhibited => self.coloured(Color::Magenta),
            RealServerState::Checking | RealServerState::Resolving => self.coloured(Color::Cyan),
            RealServerState::Draining | RealServerState::Drained | RealServerState::Disabled => {
                self.coloured(Color::Yellow)
            }
            RealServerState::Removed => self.quiet(),
        }
    }
}

/// `text` in exactly `width` columns; what is too long loses its middle, because addresses differ at their ends.
pub fn fit(text: &str, width: usize) -> String {
    let text = cut(text, width);
    format!("{text:<width$}")
}

/// As [`fit`], without blanks behind a shorter text.
pub fn cut(text: &str, width: usize) -> String {
    let text: Vec<char> = text.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
    if text.len() <= width {
        return text.into_iter().collect();
    }
    let kept = width.saturating_sub(2);
    let front = kept.div_ceil(2);
    let (front, back) = (&text[..front], &text[text.len() - (kept - front)..]);
    let mut short: String = front.iter().chain(&['.', '.']).chain(back).collect();
    short.truncate(short.char_indices().nth(width).map_or(short.len(), |(end, _)| end));
    short
}

/// `text` in exactly `width` columns; what is too long loses its end.
pub fn cut_end(text: &str, width: usize) -> String {
    let count = text.chars().count();
    if count <= width {
        return format!("{text:<width$}");
    }
    let mut short: String = text.chars().take(width.saturating_sub(2)).collect();
    short.push_str("..");
    short.chars().take(width).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn addresses_lose_their_middle_and_sentences_their_end() {
        assert_eq!(fit("[2001:db8:1::104]:8080", 20), "[2001:db8..104]:8080");
        assert_eq!(fit("web", 5), "web  ");
        assert_eq!(cut("web", 5), "web");
        assert_eq!(cut_end("no xdirector is running", 14), "no xdirector..");
        assert_eq!(cut("a\x1bb", 5), "a?b");
    }

    proptest! {
        #[test]
        fn every_width_is_kept(text in ".{0,40}", width in 0_usize..50) {
            prop_assert_eq!(fit(&text, width).chars().count(), width);
            prop_assert_eq!(cut_end(&text, width).chars().count(), width);
        }
    }
}
