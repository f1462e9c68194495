// The microphone as pieces of 16-bit PCM.

// Starts it; `onPcm` gets each piece. Resolves to its sampling rate and a way to end it.
export async function startMicrophone(onPcm) {
  const media = await navigator.mediaDevices.getUserMedia({
    // What these change is what emotion lives in: loudness and timbre.
    audio: { echoCancellation: false, noiseSuppression: false, autoGainControl: false },
  });
  const context = new AudioContext();
  await context.audioWorklet.addModule("/page/worklet.js");
  const source = context.createMediaStreamSource(media);
  const writer = new AudioWorkletNode(context, "pcm-writer", { numberOfOutputs: 0 });
  let onFlushed = () => {};
  writer.port.onmessage = ({ data }) => (data === null ? onFlushed() : onPcm(new Int16Array(data)));
  source.connect(writer);
  await context.resume();

  const stop = async () => {
    source.disconnect();
    await new Promise((resolve) => {
      onFlushed = resolve;
      writer.port.postMessage("flush");
    });
    media.getTracks().forEach((track) => track.stop());
    await context.close();
  };
  return { samplingRate: context.sampleRate, stop };
}
