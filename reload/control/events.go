package control

import (
	"encoding/json"
	"net/http"
	"time"

	"github.com/gapless-dev/gapless/reload"
)

// writeTime is how long a reader may let one event wait.
const writeTime = 10 * time.Second

// events writes the last ones and, where it is asked to follow, those to come. The
// stream ends with the service, or with the reader.
func (s *Server) events(w http.ResponseWriter, r *http.Request) {
	follow := r.URL.Query().Get("follow") != ""
	if follow {
		done, ok := s.followers.take(w, s.svc.Name())
		if !ok {
			return
		}
		defer done()
	}
	last, more, err := s.svc.Events(r.Context(), follow)
	if err != nil {
		answer(w, http.StatusConflict, refused{s.explain(err, quick)})
		return
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	stream := eventStream{w: w, control: http.NewResponseController(w)}
	for _, e := range last {
		if stream.write(e) != nil {
			return
		}
	}
	if stream.flush() != nil || more == nil {
		return
	}
	for e := range more {
		if stream.write(e) != nil || stream.flush() != nil {
			return // r's context ends with this handler, and takes the follower off
		}
	}
}

type eventStream struct {
	w       http.ResponseWriter
	control *http.ResponseController
}

func (s eventStream) write(e reload.Event) error {
	if err := s.control.SetWriteDeadline(time.Now().Add(writeTime)); err != nil {
		return err
	}
	return json.NewEncoder(s.w).Encode(e)
}

func (s eventStream) flush() error { return s.control.Flush() }
