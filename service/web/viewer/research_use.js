// The notice on every page.

export const RESEARCH_USE =
  "For research use only. Not a medical device; every automatic count is a proposal for a pathologist.";
