// In the browser's audio thread: samples to 16-bit PCM, a tenth of a second at a time.

class PcmWriter extends AudioWorkletProcessor {
  constructor() {
    super();
    this.pcm = new Int16Array(Math.round(sampleRate / 10));
    this.length = 0;
    // The last samples go out before the main thread hears that it has them all.
    this.port.onmessage = () => {
      this.flush();
      this.port.postMessage(null);
    };
  }

  process([channels]) {
    if (channels.length === 0) return true;
    for (let i = 0; i < channels[0].length; i += 1) {
      let sum = 0;
      for (const channel of channels) sum += channel[i];
      const sample = Math.max(-1, Math.min(1, sum / channels.length));
      this.pcm[this.length] = Math.round(sample * 32767);
      this.length += 1;
      if (this.length === this.pcm.length) this.flush();
    }
    return true;
  }

  flush() {
    if (this.length === 0) return;
    const part = this.pcm.slice(0, this.length);
    this.port.postMessage(part.buffer, [part.buffer]);
    this.length = 0;
  }
}

registerProcessor("pcm-writer", PcmWriter);
