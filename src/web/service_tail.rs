impl Handler for Service {
    async fn call(&self, request: Request<Body>) -> Answer {
        let mut entry = Entry::begin(&self.shared, &self.peer, &request);
        let gateway = self.shared.snapshot();
        let asked = Asked::of(&request);
        let answer = match self.serve(&gateway, request, &mut entry.record).await {
            Ok(answer) => answer,
            Err(error) => self.answer(&gateway, &error, &asked, &mut entry.record).into(),
        };
        entry.close_with(answer)
    }

    fn refuse(&self, refusal: &Refusal) -> Response<Body> {
        let mut record = Record::default();
        let id = record.refuse("web", refusal.reason);
        Entry::refused(&self.shared, &self.peer, refusal.status, record);
        page::plain(refusal.status, id)
    }
}
