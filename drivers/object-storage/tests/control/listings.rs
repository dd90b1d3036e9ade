// SPDX-License-Identifier: Apache-2.0
//! Listings, of objects and of their versions.

use driver_api::{
    ErrorKind, RString, RVec,
    ext::{
        BucketSpec, Conditions, ListPage, ListQuery, ObjectAbilities, ObjectInfo, ObjectName,
        PutOptions, Versioning,
    },
};

use super::{
    can, sleep,
    support::{Stage, buf, cx, fresh, refused},
};

async fn pages(stage: &Stage, bucket: &str, query: ListQuery) -> (ListPage, usize) {
    let (mut whole, mut query, mut count) = (ListPage::default(), query, 0);
    loop {
        let page = stage
            .objects
            .list(&cx(), bucket, query.clone())
            .await
            .unwrap_or_else(|error| panic!("{query:?}: {error:#}"));
        assert!(
            page.objects.len() + page.prefixes.len() <= query.limit as usize,
            "more than {}",
            query.limit
        );
        count += 1;
        assert!(count < 1000, "no end of {query:?}");
        whole.objects.extend(page.objects);
        whole.prefixes.extend(page.prefixes);
        if page.next.is_empty() {
            return (whole, count);
        }
        (query.page, query.after) = (page.next, RString::new());
    }
}

fn keys(page: &ListPage) -> Vec<&str> {
    page.objects.iter().map(|object| object.key.as_str()).collect()
}

pub async fn listings(stage: &Stage) {
    let bucket = fresh("listed");
    stage.objects.create_bucket(&cx(), BucketSpec::new(&bucket)).await.expect("a bucket");
    let mut all: Vec<String> = (0..23).map(|number| format!("many/{number:02}")).collect();
    all.extend(["a", "a b+c%d", "b/1", "b/2", "c/x/y", "ü", "z"].map(str::to_owned));
    all.sort();
    for key in &all {
        let object = ObjectName::new(&bucket, key);
        stage
            .objects
            .put(&cx(), object, buf(key.as_bytes()), PutOptions::default())
            .await
            .expect("put");
    }
    let query = |limit| ListQuery { limit, ..ListQuery::default() };
    let (whole, count) = pages(stage, &bucket, query(1000)).await;
    assert_eq!((keys(&whole), count), (all.iter().map(String::as_str).collect(), 1));
    let one = whole.objects.iter().find(|object| object.key == "a b+c%d").expect("listed");
    let head = stage
        .objects
        .head(&cx(), ObjectName::new(&bucket, "a b+c%d"), Conditions::default())
        .await
        .expect("head");
    assert_eq!((one.size, &one.etag, one.latest), (7, &head.etag, true));
    assert!(
        one.modified_ms / 1000 == head.modified_ms / 1000,
        "{} {}",
        one.modified_ms,
        head.modified_ms
    );

    let (paged, count) = pages(stage, &bucket, query(7)).await;
    assert_eq!(keys(&paged), keys(&whole));
    assert!((5..=6).contains(&count), "{count} pages");
    let (some, _) = pages(stage, &bucket, ListQuery { prefix: "many/".into(), ..query(5) }).await;
    assert_eq!(some.objects.len(), 23);
    let (after, _) = pages(stage, &bucket, ListQuery { after: "many/20".into(), ..query(3) }).await;
    assert_eq!(keys(&after), ["many/21", "many/22", "z", "ü"]);
    let (late, _) = pages(
        stage,
        &bucket,
        ListQuery { after: "many/2".into(), prefix: "many/".into(), ..query(2) },
    )
    .await;
    assert_eq!(keys(&late), ["many/20", "many/21", "many/22"]);
    for limit in [1, 2, 100] {
        let (parted, _) =
            pages(stage, &bucket, ListQuery { delimiter: "/".into(), ..query(limit) }).await;
        assert_eq!(keys(&parted), ["a", "a b+c%d", "z", "ü"]);
        assert_eq!(
            parted.prefixes.iter().map(|prefix| prefix.as_str()).collect::<Vec<_>>(),
            ["b/", "c/", "many/"]
        );
    }
    let nested = ListQuery { prefix: "c/".into(), delimiter: "/".into(), ..query(10) };
    let (nested, _) = pages(stage, &bucket, nested).await;
    assert_eq!(
        (keys(&nested), nested.prefixes.len(), nested.prefixes[0].as_str()),
        (vec![], 1, "c/x/")
    );
    let (none, _) =
        pages(stage, &bucket, ListQuery { prefix: "nothing".into(), ..query(10) }).await;
    assert_eq!(none, ListPage::default());

    refused(stage.objects.list(&cx(), &bucket, query(0)).await, ErrorKind::INVALID_ARGUMENT);
    let both = ListQuery { page: "3:abcx".into(), after: "b".into(), ..query(1) };
    refused(stage.objects.list(&cx(), &bucket, both).await, ErrorKind::INVALID_ARGUMENT);
    let odd = ListQuery { page: "what is this".into(), ..query(1) };
    refused(stage.objects.list(&cx(), &bucket, odd).await, ErrorKind::INVALID_ARGUMENT);
    refused(stage.objects.list(&cx(), "no-such-bucket-here", query(1)).await, ErrorKind::NOT_FOUND);
    let objects: RVec<_> = all.iter().map(|key| ObjectName::new(&bucket, key)).collect();
    let outcomes = stage.objects.delete_many(&cx(), &bucket, objects).await.expect("outcomes");
    assert!(outcomes.iter().all(|outcome| outcome.gone), "{outcomes:?}");
    stage.objects.delete_bucket(&cx(), &bucket).await.expect("an empty bucket");
}

pub async fn versions(stage: &Stage) {
    let bucket = fresh("versions");
    if !can(stage, ObjectAbilities::VERSIONING) {
        let error = refused(
            stage.objects.set_versioning(&cx(), &stage.bucket, true).await,
            ErrorKind::UNSUPPORTED,
        );
        assert!(format!("{error:#}").contains("account"), "{error:#}");
        return;
    }
    stage.objects.create_bucket(&cx(), BucketSpec::new(&bucket)).await.expect("a bucket");
    let on = stage.objects.set_versioning(&cx(), &bucket, true).await.expect("versioning");
    assert_eq!(on.versioning, Versioning::ON);
    assert_eq!(
        stage.objects.bucket(&cx(), &bucket).await.expect("show").versioning,
        Versioning::ON
    );
    let object = ObjectName::new(&bucket, "k/1");
    for data in [&b"first"[..], b"second!", b"third"] {
        stage
            .objects
            .put(&cx(), object.clone(), buf(data), PutOptions::default())
            .await
            .expect("put");
        // Swift tells versions apart by their time.
        sleep(20);
    }
    stage.objects.delete(&cx(), object.clone(), Conditions::default()).await.expect("delete");
    for limit in [1000, 1] {
        let query = ListQuery { limit, versions: true, ..ListQuery::default() };
        let (listed, _) = pages(stage, &bucket, query).await;
        let sizes: Vec<_> = listed
            .objects
            .iter()
            .filter(|object| !object.deleted)
            .map(|object| object.size)
            .collect();
        let mut sorted = sizes.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, [5, 5, 7], "limit {limit}: {listed:?}");
        if stage.objects.features().kind != "gcs" {
            assert_eq!(
                listed.objects.iter().filter(|object| object.deleted && object.latest).count(),
                1,
                "{listed:?}"
            );
        }
        let second =
            listed.objects.iter().find(|object| object.size == 7).expect("the second version");
        let old = ObjectName { version: second.version.clone(), ..object.clone() };
        let get = stage
            .objects
            .get(&cx(), old, 0, 100, Conditions::default())
            .await
            .expect("an old version");
        assert_eq!(&get.data[..], b"second!");
    }
    let plain = ListQuery { limit: 10, ..ListQuery::default() };
    assert!(stage.objects.list(&cx(), &bucket, plain).await.expect("a page").objects.is_empty());
    let error = refused(stage.objects.delete_bucket(&cx(), &bucket).await, ErrorKind::IN_USE);
    assert!(format!("{error:#}").contains("k/1"), "{error:#}");
    let query = ListQuery { limit: 1000, versions: true, ..ListQuery::default() };
    let (listed, _) = pages(stage, &bucket, query).await;
    let named = |info: &ObjectInfo| ObjectName {
        version: info.version.clone(),
        ..ObjectName::new(&bucket, &info.key)
    };
    let objects: RVec<_> = listed.objects.iter().map(named).collect();
    let outcomes = stage.objects.delete_many(&cx(), &bucket, objects).await.expect("outcomes");
    assert!(outcomes.iter().all(|outcome| outcome.gone), "{outcomes:?}");
    let off = stage.objects.set_versioning(&cx(), &bucket, false).await.expect("no versioning");
    assert!(matches!(off.versioning, Versioning::SUSPENDED | Versioning::OFF), "{off:?}");
    stage.objects.delete_bucket(&cx(), &bucket).await.expect("nothing is left");
}
