// SPDX-License-Identifier: Apache-2.0
//! Buckets: made, listed, kept while they have something, with versions and policies where the store has them; and what is
//! said of objects.

use super::{IN_USE, NOT_FOUND, Scene};
use crate::{
    failure::{Context, Failure, Outcome, ensure},
    objects::Store,
    program::Program,
};

impl Scene<'_> {
    /// A bucket, and what is done with it as a whole.
    pub(super) fn buckets(&self) -> Outcome {
        let (front, bucket) = (&self.front, self.bucket.as_str());
        front.run(&["bucket", "create", bucket])?;
        let listed = front.json(&["bucket", "list"])?.to_string();
        ensure(listed.contains(bucket), || format!("it is not listed: {listed}"))?;
        ensure(front.json(&["bucket", "show", bucket])?["name"] == bucket, || "show".to_owned())?;
        let versions = self.versions().context("versions")?;
        let policy = self.policy().context("policy")?;
        // Another one, which has something and goes with it.
        let full = format!("{bucket}-full");
        front.run(&["bucket", "create", &full])?;
        let file = self.text("small", "something")?;
        front.put(&file, &format!("{full}/a/b"), &[])?;
        let said = front.refused(&["bucket", "delete", &full], &[IN_USE])?;
        ensure(said.contains("--with-objects"), || format!("no way out is told: {said}"))?;
        ensure(front.has(&format!("{full}/a/b"))?, || "a refused deletion deleted".to_owned())?;
        front.run(&["bucket", "delete", &full, "--with-objects"])?;
        let listed = front.json(&["bucket", "list"])?.to_string();
        ensure(!listed.contains(&full), || format!("{full} is still listed"))?;
        front.refused(&["bucket", "show", &full], &[NOT_FOUND])?;
        self.tell(format!(
            "a bucket is made, kept while it has something, and goes with it; {versions}; {policy}"
        ));
        Ok(())
    }

    fn versions(&self) -> Outcome<&'static str> {
        let (front, bucket) = (&self.front, format!("{}-versions", self.bucket));
        if !self.can("versioning") {
            front.run(&["bucket", "create", &bucket])?;
            self.cannot("versioning", &["bucket", "versioning", &bucket, "on"])?;
            front.run(&["bucket", "delete", &bucket])?;
            return Ok("no versions");
        }
        front.run(&["bucket", "create", &bucket])?;
        front.run(&["bucket", "versioning", &bucket, "on"])?;
        let shown = front.json(&["bucket", "show", &bucket])?;
        ensure(shown["versioning"] == "on", || format!("versioning: {shown}"))?;
        let object = format!("{bucket}/one");
        for text in ["first", "second"] {
            front.put(&self.text("version", text)?, &object, &[])?;
        }
        let listed = front.json(&["object", "list", &bucket, "--versions"])?;
        let list = listed.as_array().or_else(|| listed["objects"].as_array());
        let list = list.ok_or_else(|| Failure::new(format!("no listing: {listed}")))?;
        let old = list.iter().find(|one| one["latest"] == false);
        let old = old.and_then(|one| one["version"].as_str());
        let old = old.ok_or_else(|| Failure::new(format!("no old version: {listed}")))?;
        let file = self.file("old-version");
        front.get(&object, &file, &["--version", old])?;
        let text = std::fs::read_to_string(&file).context("the old version")?;
        ensure(text == "first", || format!("the old version is {text:?}"))?;
        self.holds(&object, "second")?;
        front.run(&["object", "delete", &object])?;
        ensure(!front.has(&object)?, || "a deleted object is there".to_owned())?;
        front.refused(&["bucket", "delete", &bucket], &[IN_USE])?;
        front.run(&["bucket", "delete", &bucket, "--with-objects"])?;
        Ok("versions are kept, read and go with it")
    }

    fn policy(&self) -> Outcome<&'static str> {
        let (front, bucket) = (&self.front, self.bucket.as_str());
        if !self.can("policy") {
            self.cannot("policy", &["bucket", "policy", "get", bucket])?;
            return Ok("no policies");
        }
        if self.store.kind() != "s3" {
            // One that was just made has none, or an empty one.
            front.ask(&["bucket", "policy", "get", bucket]).codes(&[0, NOT_FOUND]).run()?;
            return Ok("its policy is told");
        }
        let public = format!(
            r#"{{"Version":"2012-10-17","Statement":[{{"Effect":"Allow","Principal":"*","Action":["s3:GetObject"],"Resource":["arn:aws:s3:::{bucket}/public/*"]}}]}}"#
        );
        let file = self.text("policy.json", &public)?;
        front.ask(&["bucket", "policy", "set", bucket]).arg(&file).run()?;
        let got = front.run(&["bucket", "policy", "get", bucket])?.stdout;
        ensure(got.contains("s3:GetObject"), || format!("the policy is {got}"))?;
        let file = self.text("public", "for all")?;
        for key in ["public/a", "private/a"] {
            front.put(&file, &self.object(key), &[])?;
        }
        if self.store.checks_signatures() {
            // The policy does what it says: this client shows no credentials.
            let base = self.objects.url(self.store)?;
            for (key, wanted) in [("public/a", "200"), ("private/a", "403")] {
                let url = format!("{}/{bucket}/{key}", base.trim_end_matches('/'));
                let curl = Program::new("curl").args(["-s", "-w", "%{http_code}", "-o"]);
                let status = curl.arg(self.file("public-got")).arg(&url).run()?.stdout;
                ensure(status == wanted, || format!("{url} without credentials: {status}"))?;
            }
        }
        front.run(&["bucket", "policy", "remove", bucket])?;
        front.run(&["object", "delete", &self.object("public/a"), &self.object("private/a")])?;
        Ok("its policy is set, heeded and removed")
    }

    /// What is said of objects, copies, listings and deletions of many.
    pub(super) fn contents(&self) -> Outcome {
        let front = &self.front;
        let (one, other) = (self.object("said/one"), self.object("said/other"));
        let file = self.text("said", "content")?;
        let mut words =
            vec!["--content-type", "text/plain", "--meta", "colour=blue", "--meta", "size=big"];
        if self.can("tags") {
            words.extend(["--tag", "team=storage"]);
        }
        front.put(&file, &one, &words)?;
        let said = front.head(&one)?;
        ensure(
            said["metadata"]["colour"] == "blue" && said["content_type"] == "text/plain",
            || format!("head tells {said}"),
        )?;
        ensure(said["metadata"].as_object().is_some_and(|all| all.len() == 2), || {
            format!("more metadata than was given: {said}")
        })?;
        if self.can("tags") {
            let tags = front.json(&["object", "tags", "get", &one])?.to_string();
            ensure(tags.contains("storage"), || format!("tags: {tags}"))?;
        }
        front.run(&["object", "copy", &one, &other])?;
        self.holds(&other, "content")?;
        let copied = front.head(&other)?;
        ensure(copied["metadata"]["colour"] == "blue", || format!("the copy: {copied}"))?;
        if self.can("change-metadata") {
            front.run(&["object", "change", &one, "--meta", "colour=red"])?;
            let said = front.head(&one)?;
            ensure(said["metadata"]["colour"] == "red", || format!("changed to {said}"))?;
            self.holds(&one, "content")?;
        }
        let keys = ["said/a b", "said/d+e", "said/dir/é", "said/dir/x%2Fy"];
        for key in keys {
            front.put(&file, &self.object(key), &[])?;
        }
        let mut expected = [&keys[..], &["said/one", "said/other"]].concat();
        expected.sort_unstable();
        let listed = front.keys(&self.bucket, "said/")?;
        ensure(listed == expected, || format!("listed {listed:?}, not {expected:?}"))?;
        let parted = front.run(&[
            "object",
            "list",
            &self.bucket,
            "--prefix",
            "said/",
            "--delimiter",
            "/",
        ])?;
        ensure(parted.stdout.contains("said/dir/") && !parted.stdout.contains('é'), || {
            format!("with a delimiter: {}", parted.stdout)
        })?;
        for key in keys {
            self.holds(&self.object(key), "content")?;
        }
        front.run(&["object", "delete", &self.object("said/"), "--recursive", "--yes"])?;
        let listed = front.keys(&self.bucket, "said/")?;
        ensure(listed.is_empty(), || format!("after deletion there are {listed:?}"))?;
        self.tell(
            "objects are put, told, copied, changed, listed and deleted, with odd names, too",
        );
        Ok(())
    }

    /// The bucket goes at last, and nothing is left.
    pub(super) fn end(&self) -> Outcome {
        self.front.run(&["bucket", "delete", &self.bucket, "--with-objects"])?;
        let listed = self.front.json(&["bucket", "list"])?.to_string();
        let segments = format!("{}_segments", self.bucket);
        if self.store == Store::Swift && listed.contains(&segments) {
            // A busy Swift tells a container later that its objects are gone, and only an empty one can be deleted.
            self.objects.expire()?;
            let late = self.front.json(&["bucket", "list"])?.to_string();
            if late.contains(&segments) {
                self.front.run(&["bucket", "delete", &segments])?;
            }
            return self.is_gone(&self.front.json(&["bucket", "list"])?.to_string());
        }
        self.is_gone(&listed)
    }

    fn is_gone(&self, listed: &str) -> Outcome {
        ensure(!listed.contains(&self.bucket), || format!("something is left: {listed}"))
    }
}
