"""What a reply is worth: its decision, the questions in it, the slots that they ask for, the reward."""
