package main

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
)

// meter shows how far a long piece of work is. Its functions are called from another goroutine than the work.
type meter struct {
	what   string       // "scanning sda"
	total  func() int64 // bytes, or less than 0 while that is not known
	done   func() int64
	detail func() string         // more for people; may be nil
	fields func() map[string]any // more for programs; may be nil

	started time.Time
	stop    chan struct{}
	ended   chan struct{}
}

// frames returns how long to wait between two pictures of progress.
func frames() time.Duration {
	if fps, err := strconv.ParseFloat(os.Getenv("VARVE_PROGRESS_FPS"), 64); err == nil && fps > 0 {
		return max(time.Duration(float64(time.Second)/fps), 10*time.Millisecond)
	}
	return 100 * time.Millisecond
}

// begin starts to show m, in place of what was shown before. The caller calls end when the work is over.
func (u *ui) begin(m *meter) (end func()) {
	u.endSteps()
	if u.quiet || (!u.json && !u.draws) {
		return func() {}
	}
	m.started, m.stop, m.ended = time.Now(), make(chan struct{}), make(chan struct{})
	u.mu.Lock()
	u.active = m
	u.mu.Unlock()
	if u.json {
		go u.report(m)
	} else {
		go u.draw(m)
	}
	return func() {
		close(m.stop)
		<-m.ended
		u.mu.Lock()
		u.active = nil
		u.mu.Unlock()
	}
}

// report writes status objects.
func (u *ui) report(m *meter) {
	defer close(m.ended)
	tick := time.NewTicker(frames())
	defer tick.Stop()
	for {
		select {
		case <-m.stop:
			return
		case <-tick.C:
			u.object(m.status())
		}
	}
}

// status is what restic calls so.
func (m *meter) status() map[string]any {
	done, total, elapsed := m.done(), m.total(), time.Since(m.started)
	s := map[string]any{"message_type": "status", "action": m.what, "seconds_elapsed": int64(elapsed.Seconds()), "bytes_done": done}
	if total >= 0 {
		s["total_bytes"] = total
		s["percent_done"] = 1.0
		if total > 0 {
			s["percent_done"] = float64(done) / float64(total)
		}
		if left, known := remaining(done, total, elapsed); known {
			s["seconds_remaining"] = int64(left.Seconds())
		}
	}
	if m.fields != nil {
		for k, v := range m.fields() {
			s[k] = v
		}
	}
	return s
}

// remaining guesses how long the rest takes.
func remaining(done, total int64, elapsed time.Duration) (time.Duration, bool) {
	if done <= 0 || total < done || elapsed < time.Second {
		return 0, false
	}
	return time.Duration(float64(elapsed) * float64(total-done) / float64(done)), true
}

// draw draws a bar on the terminal.
func (u *ui) draw(m *meter) {
	defer close(m.ended)
	bars := mpb.New(mpb.WithOutput(u.err), mpb.WithRefreshRate(frames()), mpb.WithWidth(32))
	text := decor.Any(func(decor.Statistics) string { return m.line() })
	var bar *mpb.Bar
	if total := m.total(); total > 0 {
		bar = bars.New(total, mpb.BarStyle().Lbound("").Rbound("").Filler("━").Tip("━").Padding("┄"),
			mpb.PrependDecorators(decor.Name(m.what+" ")), mpb.AppendDecorators(text))
	} else {
		bar = bars.New(0, mpb.SpinnerStyle(), mpb.PrependDecorators(decor.Name(m.what+" ")), mpb.AppendDecorators(text))
	}
	u.mu.Lock()
	u.bars = bars
	u.mu.Unlock()
	tick := time.NewTicker(frames())
	defer tick.Stop()
	for drawing := true; drawing; {
		select {
		case <-m.stop:
			drawing = false
		case <-tick.C:
			bar.SetCurrent(min(m.done(), max(0, m.total()-1))) // the bar goes when the work is over, not before
		}
	}
	u.mu.Lock()
	u.bars = nil
	u.mu.Unlock()
	bar.Abort(true)
	bars.Wait()
}

// line is what stands behind the bar.
func (m *meter) line() string {
	done, total, elapsed := m.done(), m.total(), time.Since(m.started)
	text := " " + size(done)
	if total >= 0 {
		text += " of " + size(total)
	}
	if seconds := elapsed.Seconds(); seconds >= 1 {
		text += fmt.Sprintf("  %s/s", size(int64(float64(done)/seconds)))
	}
	if left, known := remaining(done, total, elapsed); known {
		text += "  " + clock(left) + " left"
	}
	if m.detail != nil {
		text += "  " + m.detail()
	}
	return text
}

// clock is a length of time for people: "3:07", "1:02:45".
func clock(d time.Duration) string {
	s := int64(d.Round(time.Second).Seconds())
	if s < 3600 {
		return fmt.Sprintf("%d:%02d", s/60, s%60)
	}
	return fmt.Sprintf("%d:%02d:%02d", s/3600, s/60%60, s%60)
}

// stepMeter shows the steps of work that counts things, not bytes.
type stepMeter struct {
	what        string
	done, total int
	shown       time.Time
}

// stepTo tells that done of total steps of what are over. A step line is drawn over the one before.
func (u *ui) stepTo(what string, done, total int) {
	if u.quiet || (!u.json && !u.draws) {
		return
	}
	u.mu.Lock()
	if u.step == nil || u.step.what != what {
		u.step = &stepMeter{what: what}
	}
	s := u.step
	s.done, s.total = done, total
	// The first is not shown at once, so that what is quick is not shown at all.
	if s.shown.IsZero() {
		s.shown = time.Now()
	}
	due := time.Since(s.shown) >= frames() && u.active == nil
	if due {
		s.shown = time.Now()
	}
	u.mu.Unlock()
	switch {
	case !due:
	case u.json:
		u.object(map[string]any{"message_type": "status", "action": what, "done": done, "total": total,
			"percent_done": float64(done) / float64(max(1, total))})
	default:
		_, _ = fmt.Fprintf(u.err, "\r\x1b[K%s: %d of %d", what, done, total)
	}
	if done >= total {
		u.endSteps()
	}
}

// endSteps wipes the line of steps away.
func (u *ui) endSteps() {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.step != nil && !u.json && u.draws {
		_, _ = io.WriteString(u.err, "\r\x1b[K")
	}
	u.step = nil
}
