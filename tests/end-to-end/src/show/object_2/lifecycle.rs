// SPDX-License-Identifier: Apache-2.0
//! Lifecycle rules: set, got and removed as the store has them, and refused with the reason where it has none.

use std::{thread, time::Duration};

use serde_json::{Value, json};

use super::{INVALID, Scene, UNSUPPORTED};
use crate::{
    failure::{Context, Failure, Outcome, ensure},
    objects::Store,
    program::until,
};

/// How long a gateway may take to remove what has expired.
const CLEARED: Duration = Duration::from_secs(60);

impl Scene<'_> {
    /// Rules that the store has.
    fn rules(&self) -> Value {
        let logs = json!({
            "id": "logs", "enabled": true, "prefix": "logs/", "expire_days": 30,
        });
        let stale = json!({
            "id": "stale", "enabled": true, "prefix": "stale/", "abort_upload_days": 7,
        });
        let old = |class: &str| {
            json!({
                "id": "old", "enabled": true, "prefix": "old/",
                "transition_days": 60, "transition_class": class,
            })
        };
        let versions = json!({
            "id": "versions", "enabled": false, "prefix": "v/", "expire_noncurrent_days": 3,
        });
        let mut rules = vec![logs];
        if self.can("abort-rules") {
            rules.push(stale);
        }
        match self.store {
            Store::Moto => rules.extend([old("GLACIER"), versions]),
            Store::Gcs => rules.push(old("NEARLINE")),
            Store::Radosgw => rules.push(versions),
            _ => {}
        }
        json!({ "rules": rules })
    }

    pub(super) fn lifecycle(&self) -> Outcome {
        let (front, bucket) = (&self.front, self.bucket.as_str());
        if self.store.kind() == "azure" {
            let file = self.text("rules.json", &self.rules().to_string())?;
            let file = file.display().to_string();
            for words in [
                &["bucket", "lifecycle", "get", bucket][..],
                &["bucket", "lifecycle", "set", bucket, &file],
            ] {
                let said = self.cannot("expire-rules", words)?;
                ensure(said.contains("management"), || format!("no reason is told: {said}"))?;
            }
            self.tell("lifecycle: refused, for its rules live in the management plane");
            return Ok(());
        }
        if !self.can("expire-rules") {
            let said = self.cannot("expire-rules", &["bucket", "lifecycle", "get", bucket])?;
            let said = said.lines().next().unwrap_or_default().to_owned();
            let expiry = self.expiry().context("expiry")?;
            let prefix = self.prefix().context("expiry of a prefix")?;
            self.tell(format!("lifecycle: {said}{expiry}{prefix}"));
            return Ok(());
        }
        let rules = self.rules();
        let file = self.text("rules.json", &rules.to_string())?;
        front.ask(&["bucket", "lifecycle", "set", bucket]).arg(&file).run()?;
        let got = front.json(&["bucket", "lifecycle", "get", bucket])?;
        same(&rules, &got)?;
        // A rule that no store can keep is refused, and those that were set stay.
        let wrong = json!({ "rules": [{ "id": "both", "prefix": "x/", "transition_days": 3 }] });
        let file = self.text("wrong.json", &wrong.to_string())?.display().to_string();
        front.refused(&["bucket", "lifecycle", "set", bucket, &file], &[INVALID, UNSUPPORTED])?;
        same(&rules, &front.json(&["bucket", "lifecycle", "get", bucket])?)
            .context("after a refusal")?;
        front.run(&["bucket", "lifecycle", "remove", bucket])?;
        let got = front.json(&["bucket", "lifecycle", "get", bucket])?;
        ensure(list(&got)?.is_empty(), || format!("after removal there is {got}"))?;
        let expiry = self.expiry().context("expiry")?;
        let count = list(&rules)?.len();
        self.tell(format!("lifecycle: {count} rules set, got and removed{expiry}"));
        Ok(())
    }

    /// What takes the place of rules in Swift: a command that gives the objects of a prefix their time.
    fn prefix(&self) -> Outcome<&'static str> {
        if self.store.kind() != "swift" {
            return Ok("");
        }
        let file = self.text("expiring", "gone some day")?;
        for key in ["logs/a", "logs/b", "kept/a"] {
            self.front.put(&file, &self.object(key), &[])?;
        }
        let wish = json!({ "bucket": self.bucket, "prefix": "logs/", "days": 30, "after": "" });
        self.host.cli().run_on_backend(self.store.name(), "expire-prefix", &wish)?;
        for (key, goes) in [("logs/a", true), ("logs/b", true), ("kept/a", false)] {
            let said = self.front.head(&self.object(key))?;
            let told = said["expires_ms"].as_u64().is_some_and(|moment| moment > 0);
            ensure(told == goes, || format!("{key}: {said}"))?;
            self.holds(&self.object(key), "gone some day")?;
        }
        Ok("; the objects of a prefix are given theirs")
    }

    /// An object with a time to live.
    fn expiry(&self) -> Outcome<&'static str> {
        let (front, object) = (&self.front, self.object("short-lived"));
        let file = self.text("short-lived", "gone soon")?;
        if !self.can("object-expiry") {
            let words =
                ["object", "put", &file.display().to_string(), &object, "--expire-after", "1h"];
            self.cannot("object-expiry", &words)?;
            return Ok("; no expiry of one object");
        }
        // A busy server takes its time to tell of it.
        front.put(&file, &object, &["--expire-after", "10s"])?;
        let said = front.head(&object)?;
        ensure(said["expires_ms"].as_u64().is_some(), || format!("no end is told: {said}"))?;
        thread::sleep(Duration::from_secs(11));
        ensure(!front.has(&object)?, || "it is there after its end".to_owned())?;
        if self.store == Store::Swift {
            self.objects.expire()?;
        }
        if self.store != Store::Keystone {
            // The servers that remove what expired are those of Swift, and the gateway itself.
            until(CLEARED, || {
                let keys = front.keys(&self.bucket, "short-lived")?;
                ensure(keys.is_empty(), || format!("it is still listed: {keys:?}"))
            })?;
        }
        Ok("; an object goes at its own time")
    }
}

fn list(answer: &Value) -> Outcome<&Vec<Value>> {
    let list = answer.as_array().or_else(|| answer["rules"].as_array());
    list.ok_or_else(|| Failure::new(format!("no rules: {answer}")))
}

/// Whether a store has the rules that it was given. Where it has no names for rules, they get others.
fn same(given: &Value, got: &Value) -> Outcome {
    let (given, got) = (list(given)?, list(got)?);
    ensure(given.len() == got.len(), || format!("{given:?} came back as {got:?}"))?;
    for rule in given {
        let other = got.iter().find(|other| other["prefix"] == rule["prefix"]);
        let other = other.ok_or_else(|| Failure::new(format!("{rule} did not come back")))?;
        let fields = rule.as_object().into_iter().flatten().filter(|(key, _)| *key != "id");
        for (key, value) in fields {
            ensure(&other[key] == value, || format!("{rule} came back as {other}"))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::same;

    #[test]
    fn rules_are_the_same_in_all_but_their_names() {
        let given = json!({ "rules": [{ "id": "a", "prefix": "x", "expire_days": 3 }] });
        let got = json!([{ "id": "1", "prefix": "x", "expire_days": 3, "enabled": true }]);
        assert!(same(&given, &got).is_ok());
        let other = json!([{ "id": "1", "prefix": "x", "expire_days": 4 }]);
        assert!(same(&given, &other).is_err());
        assert!(same(&given, &json!([])).is_err());
        assert!(same(&given, &json!({})).is_err());
    }
}
