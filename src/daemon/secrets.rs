//! What a login needs from a person: secrets that were typed before, and somebody who can be asked.

use std::fmt;
use std::sync::Arc;

use crate::control::Secret;
use crate::remote::{SecretRequest, SecretSource};

/// What a person types to log in where no key does, or to unlock one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Secrets {
    /// The password of the account on the server.
    pub password: Option<Secret>,
    /// The passphrase of a private key.
    pub passphrase: Option<Secret>,
}

/// Somebody at a terminal.
pub trait Ask: Send + Sync {
    /// Whether anybody can be asked, still.
    fn is_there(&self) -> bool;
    /// Asks, and waits for the answer.
    fn ask(&self, prompt: &str, echo: bool) -> Option<String>;
    /// Tells something.
    fn tell(&self, text: &str);
}

/// Whom to ask, if anybody.
#[derive(Clone, Default)]
pub struct Asker(Option<Arc<dyn Ask>>);

impl Asker {
    /// This one.
    pub fn new(ask: impl Ask + 'static) -> Self {
        Self(Some(Arc::new(ask)))
    }

    fn get(&self) -> Option<&dyn Ask> {
        self.0.as_deref().filter(|ask| ask.is_there())
    }
}

impl fmt::Debug for Asker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let who = if self.get().is_some() {
            "a person"
        } else {
            "nobody"
        };
        f.write_str(who)
    }
}

/// Which questions go to the person.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    /// What a server makes up, such as a code. Passwords and passphrases are asked for when a login failed.
    Questions,
    /// All.
    Everything,
}

/// Answers what a login needs; `None` if there is nothing to answer with.
pub(super) fn source(secrets: &Secrets, asker: &Asker, asked: Asked) -> Option<SecretSource> {
    if secrets == &Secrets::default() && asker.get().is_none() {
        return None;
    }
    let (secrets, asker) = (secrets.clone(), asker.clone());
    Some(Arc::new(move |request| {
        let known = |secret: &Option<Secret>| secret.as_ref().map(|s| s.reveal().to_owned());
        let ask = |prompt: &str, echo| asker.get().and_then(|ask| ask.ask(prompt, echo));
        let ask_secret = |prompt: &str| match asked {
            Asked::Everything => ask(prompt, false),
            Asked::Questions => None,
        };
        match request {
            SecretRequest::Password { user, host } => known(&secrets.password)
                .or_else(|| ask_secret(&format!("{user}@{host}'s password: "))),
            SecretRequest::Passphrase { identity } => known(&secrets.passphrase)
                .or_else(|| ask_secret(&format!("passphrase of {}: ", identity.display()))),
            SecretRequest::Question { prompt, echo } => {
                let is_password = !echo && prompt.to_lowercase().contains("password");
                match asker.get() {
                    // Servers that speak other languages than we.
                    None => known(&secrets.password).filter(|_| !echo),
                    Some(_) if is_password => {
                        known(&secrets.password).or_else(|| ask_secret(&spaced(prompt)))
                    }
                    Some(_) => ask(&spaced(prompt), *echo),
                }
            }
            SecretRequest::Notice { text } => {
                if let Some(ask) = asker.get() {
                    ask.tell(text);
                }
                None
            }
        }
    }))
}

fn spaced(prompt: &str) -> String {
    format!("{} ", prompt.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Person;

    impl Ask for Person {
        fn is_there(&self) -> bool {
            true
        }

        fn ask(&self, prompt: &str, _echo: bool) -> Option<String> {
            Some(format!("typed at {prompt:?}"))
        }

        fn tell(&self, _text: &str) {}
    }

    #[test]
    fn each_question_goes_where_its_answer_is() {
        let password = Secrets {
            password: Some(Secret::new("secret".into())),
            passphrase: None,
        };
        let none = Secrets::default();
        let question = |prompt: &str, echo| SecretRequest::Question {
            prompt: prompt.to_owned(),
            echo,
        };
        let answer = |secrets: &Secrets, person: bool, asked, request: &SecretRequest| {
            let asker = if person {
                Asker::new(Person)
            } else {
                Asker::default()
            };
            source(secrets, &asker, asked).and_then(|source| source(request))
        };
        let typed = |prompt: &str| Some(format!("typed at {prompt:?}"));
        let known = Some("secret".to_owned());
        use Asked::{Everything, Questions};
        for (secrets, person, asked, request, expected) in [
            (&none, false, Everything, question("Code:", false), None),
            (
                &password,
                false,
                Questions,
                question("Passwort:", false),
                known.clone(),
            ),
            (&password, false, Questions, question("Code:", true), None),
            (
                &password,
                true,
                Questions,
                question("Password: ", false),
                known.clone(),
            ),
            (
                &password,
                true,
                Questions,
                question("Code:", false),
                typed("Code: "),
            ),
            (&none, true, Questions, question("Password: ", false), None),
            (
                &none,
                true,
                Everything,
                question("Password: ", false),
                typed("Password: "),
            ),
            (
                &none,
                true,
                Questions,
                question("Name:", true),
                typed("Name: "),
            ),
        ] {
            let shown = format!("{secrets:?} {person} {asked:?} {request:?}");
            assert_eq!(
                answer(secrets, person, asked, &request),
                expected,
                "{shown}"
            );
        }
    }
}
